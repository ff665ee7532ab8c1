//! Real replica sets (and standalone servers) on 127.0.0.1, each gone when it is dropped or its
//! test dies.

mod member;
mod options;

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use mongodb::Client;
use mongodb::bson::{Document, doc};
use mongodb::options::{AuthMechanism, ClientOptions, Credential};
use rustix::process::Signal;
use tempfile::TempDir;

use crate::fault_proxy::FaultProxy;
use crate::tls::TlsFiles;
use member::Member;
pub use options::{Auth, Options, Role, TlsMode, User};

/// The name of the user that may do everything, where there is access control.
pub const ROOT_USER: &str = "root";
/// That user's password.
pub const ROOT_PASSWORD: &str = "rig-root-password";

/// The file by which members know each other, in the set's folder.
const KEY_FILE: &str = "key";

/// How long a server may take to start, stop or elect on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(20);

/// A running replica set, or standalone server. Dropping it kills it and removes its data.
#[derive(Debug)]
pub struct ReplicaSet {
    options: Options,
    members: Vec<Member>,
    tls: Option<TlsFiles>,
    folder: TempDir,
}

impl ReplicaSet {
    /// Starts it, and waits until it takes writes and all its members follow.
    ///
    /// # Errors
    /// When there is no `mongod`, or it does not start: the message holds the end of its log.
    pub async fn start(options: Options) -> Result<Self> {
        ensure!(options.members > 0, "a replica set has at least one member");
        ensure!(!options.standalone || options.members == 1, "a standalone server is one server");
        // Looking for mongod may take a download; it must not hold up the runtime's other tasks.
        let wanted = options.clone();
        tokio::task::spawn_blocking(move || wanted.program()).await??;
        let folder = tempfile::Builder::new()
            .prefix("cutover-rig-")
            .tempdir()
            .context("failed to create a folder")?;
        let tls = match (options.tls, &options.certificates) {
            (Some(_), Some(given)) => Some(given.clone()),
            (Some(_), None) => Some(TlsFiles::write(folder.path())?),
            (None, _) => None,
        };
        if options.auth.is_some() && !options.standalone {
            let key = folder.path().join(KEY_FILE);
            fs::write(&key, "cutoverrigcutoverrigcutoverrig12")?;
            fs::set_permissions(&key, Permissions::from_mode(0o600))?;
        }
        let mut members = Vec::new();
        for index in 0..options.members {
            members.push(Member::start(&options, tls.as_ref(), folder.path(), index).await?);
        }
        let set = Self { options, members, tls, folder };
        set.initiate().await.with_context(|| {
            format!("failed to initiate replica set {}: {}", set.options.name, set.log_end(0))
        })?;
        set.create_users().await.context("failed to create the users")?;
        Ok(set)
    }

    /// The connection string, without credentials and TLS settings.
    #[must_use]
    pub fn uri(&self) -> String {
        let hosts: Vec<String> = (0..self.members.len()).map(|index| self.host(index)).collect();
        let option = if self.options.standalone {
            "directConnection=true".to_owned()
        } else {
            format!("replicaSet={}", self.options.name)
        };
        format!("mongodb://{}/?{option}", hosts.join(","))
    }

    /// The `host:port` under which a member is reached: its proxy's where it has one.
    #[must_use]
    pub fn host(&self, member: usize) -> String {
        let member = &self.members[member];
        let port =
            member.proxy.as_ref().map_or(member.port.number(), |proxy| proxy.address().port());
        format!("127.0.0.1:{port}")
    }

    /// The replica set's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.options.name
    }

    /// The replica set as a sharded cluster names it: `NAME/HOST:PORT[,HOST:PORT]`.
    #[must_use]
    pub fn seed(&self) -> String {
        let hosts: Vec<String> = (0..self.members.len()).map(|index| self.host(index)).collect();
        format!("{}/{}", self.options.name, hosts.join(","))
    }

    /// The file by which the members know each other, where there is access control.
    #[must_use]
    pub fn key_file(&self) -> Option<PathBuf> {
        self.options.auth.as_ref().map(|_| self.folder.path().join(KEY_FILE))
    }

    /// The certificates, where it uses TLS.
    #[must_use]
    pub fn tls(&self) -> Option<&TlsFiles> {
        self.tls.as_ref()
    }

    /// The proxy before a member, where it was started with `proxied`.
    #[must_use]
    pub fn proxy(&self, member: usize) -> Option<&FaultProxy> {
        self.members[member].proxy.as_ref()
    }

    /// A member's process id.
    #[must_use]
    pub fn pid(&self, member: usize) -> i32 {
        self.members[member].server.pid()
    }

    /// A client of the whole set that may do everything.
    ///
    /// # Errors
    /// When the client cannot be made; it connects later.
    pub async fn client(&self) -> Result<Client> {
        self.connect(&self.uri(), self.root_credential()).await
    }

    /// A client of another address of the same deployment that may do everything.
    pub(crate) async fn client_of(&self, uri: &str) -> Result<Client> {
        self.connect(uri, self.root_credential()).await
    }

    /// A client of one member that may do everything, also where the member is no primary.
    ///
    /// # Errors
    /// When the client cannot be made; it connects later.
    pub async fn member_client(&self, member: usize) -> Result<Client> {
        self.connect(&self.direct_uri(member), self.root_credential()).await
    }

    /// A client of the whole set with a user's rights.
    ///
    /// # Errors
    /// When the client cannot be made; it connects later.
    pub async fn client_as(&self, user: &User) -> Result<Client> {
        let credential = match &user.password {
            Some(password) => password_credential(&user.name, password),
            None => Credential::builder().mechanism(AuthMechanism::MongoDbX509).build(),
        };
        self.connect(&self.uri(), Some(credential)).await
    }

    /// The index of the primary, waited for.
    ///
    /// # Errors
    /// When no member is elected in time.
    pub async fn primary(&self) -> Result<usize> {
        let start = Instant::now();
        loop {
            for (index, member) in self.members.iter().enumerate() {
                if member.server.is_running()
                    && self.hello(index).await.is_ok_and(|hello| is_primary(&hello))
                {
                    return Ok(index);
                }
            }
            ensure!(start.elapsed() < PATIENCE, "replica set {} has no primary", self.options.name);
            tokio::time::sleep(POLL).await;
        }
    }

    /// Stops a member with SIGTERM and waits until it is gone.
    ///
    /// # Errors
    /// When it does not stop.
    pub async fn stop_member(&mut self, member: usize) -> Result<()> {
        let server = &mut self.members[member].server;
        server.signal(Signal::TERM)?;
        server.wait(PATIENCE).await?;
        Ok(())
    }

    /// Kills a member with SIGKILL and waits until it is gone.
    ///
    /// # Errors
    /// When it cannot be killed.
    pub async fn kill_member(&mut self, member: usize) -> Result<()> {
        self.members[member].server.kill9().await?;
        Ok(())
    }

    /// Freezes a member with SIGSTOP: its connections stay, and nothing answers.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn freeze_member(&self, member: usize) -> Result<()> {
        self.members[member].server.signal(Signal::STOP)
    }

    /// Lets a frozen member go on.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn thaw_member(&self, member: usize) -> Result<()> {
        self.members[member].server.signal(Signal::CONT)
    }

    /// Starts a member again, on its port and its data, and waits until it is primary or follows
    /// one.
    ///
    /// # Errors
    /// When it runs, or does not start.
    pub async fn restart_member(&mut self, member: usize) -> Result<()> {
        self.members[member].restart(&self.options, self.tls.as_ref()).await?;
        self.wait_for(member, |hello| {
            is_primary(hello) || hello.get_bool("secondary").unwrap_or(false)
        })
        .await
    }

    /// Loses the data of all members, and initiates the set anew: the same addresses and the same
    /// name, and another replica set.
    ///
    /// # Errors
    /// When a member does not stop or start.
    pub async fn begin_anew(&mut self) -> Result<()> {
        for member in 0..self.members.len() {
            self.kill_member(member).await?;
            fs::remove_dir_all(self.members[member].data())?;
        }
        for member in &mut self.members {
            member.restart(&self.options, self.tls.as_ref()).await?;
        }
        self.initiate().await?;
        self.create_users().await
    }

    /// Stops all members, keeps a copy of their data as it is now, and starts them again.
    ///
    /// # Errors
    /// When a member does not stop or start, or its data cannot be copied.
    pub async fn take_snapshot(&mut self) -> Result<()> {
        for member in 0..self.members.len() {
            self.stop_member(member).await?;
            let data = self.members[member].data();
            copy_folder(&data, &data.with_extension("kept"))?;
        }
        self.restart_all().await
    }

    /// Stops all members, gives them the data that was kept, and starts them again.
    ///
    /// # Errors
    /// When a member does not stop or start, or nothing was kept.
    pub async fn restore_snapshot(&mut self) -> Result<()> {
        for member in 0..self.members.len() {
            self.kill_member(member).await?;
            let data = self.members[member].data();
            fs::remove_dir_all(&data)?;
            fs::rename(data.with_extension("kept"), &data).context("nothing was kept")?;
        }
        self.restart_all().await
    }

    async fn restart_all(&mut self) -> Result<()> {
        for member in &mut self.members {
            member.restart(&self.options, self.tls.as_ref()).await?;
        }
        self.primary().await.map(drop)
    }

    /// Makes the primary step down, so that another member is elected; a set of one elects itself
    /// again after `seconds`.
    ///
    /// # Errors
    /// When the primary refuses.
    pub async fn step_down(&self, seconds: u32) -> Result<()> {
        let primary = self.primary().await?;
        let command =
            doc! { "replSetStepDown": seconds, "secondaryCatchUpPeriodSecs": 0, "force": true };
        self.member_client(primary).await?.database("admin").run_command(command).await?;
        Ok(())
    }

    async fn initiate(&self) -> Result<()> {
        if self.options.standalone {
            return self.wait_for(0, is_primary).await;
        }
        let members: Vec<Document> = (0..self.members.len())
            .map(|index| {
                doc! {
                    "_id": i64::try_from(index).unwrap_or_default(), "host": self.host(index),
                }
            })
            .collect();
        let timeout = i64::try_from(self.options.election_timeout.as_millis())
            .context("an election timeout in ms")?;
        let settings = doc! {
            "electionTimeoutMillis": timeout,
            "heartbeatIntervalMillis": (timeout / 10).clamp(100, 2000),
        };
        let mut config =
            doc! { "_id": &self.options.name, "members": members, "settings": settings };
        if self.options.role == Role::ConfigServer {
            config.insert("configsvr", true);
        }
        let first = self.connect(&self.direct_uri(0), None).await?;
        first.database("admin").run_command(doc! { "replSetInitiate": config }).await?;
        if self.members.len() > 1 {
            // Members wait out an election timeout before the first election, unless one is told to
            // stand at once.
            let start = Instant::now();
            while !self.hello(0).await.is_ok_and(|hello| is_primary(&hello)) {
                ensure!(start.elapsed() < PATIENCE, "no member was elected");
                let _ = first.database("admin").run_command(doc! { "replSetStepUp": 1 }).await;
                tokio::time::sleep(POLL).await;
            }
        }
        self.wait_for(0, is_primary).await?;
        for index in 1..self.members.len() {
            self.wait_for(index, |hello| hello.get_bool("secondary").unwrap_or(false)).await?;
        }
        Ok(())
    }

    async fn create_users(&self) -> Result<()> {
        let Some(auth) = &self.options.auth else { return Ok(()) };
        // The localhost exception: the first user may be created by nobody.
        let nobody = self.connect(&self.direct_uri(0), None).await?;
        let create =
            doc! { "createUser": ROOT_USER, "pwd": ROOT_PASSWORD, "roles": ["root", "__system"] };
        nobody.database("admin").run_command(create).await?;
        let root = self.client().await?;
        for user in &auth.users {
            let mut create = doc! { "createUser": &user.name, "roles": user.roles.clone() };
            if let Some(password) = &user.password {
                create.insert("pwd", password);
            }
            let database = if user.password.is_some() { "admin" } else { "$external" };
            root.database(database)
                .run_command(create)
                .await
                .with_context(|| format!("failed to create {}", user.name))?;
        }
        Ok(())
    }

    async fn wait_for(&self, member: usize, condition: impl Fn(&Document) -> bool) -> Result<()> {
        let start = Instant::now();
        loop {
            let last = match self.hello(member).await {
                Ok(hello) if condition(&hello) => return Ok(()),
                Ok(hello) => format!("hello says {hello}"),
                Err(error) => format!("{error:#}"),
            };
            if !self.members[member].server.is_running() {
                bail!("mongod ended: {}", self.log_end(member));
            }
            ensure!(
                start.elapsed() < PATIENCE,
                "member {member} of {} is not there: {last}",
                self.options.name
            );
            tokio::time::sleep(POLL).await;
        }
    }

    async fn hello(&self, member: usize) -> Result<Document> {
        let client = self.connect(&self.direct_uri(member), None).await?;
        Ok(client.database("admin").run_command(doc! { "hello": 1 }).await?)
    }

    fn direct_uri(&self, member: usize) -> String {
        format!("mongodb://127.0.0.1:{}/?directConnection=true", self.members[member].port.number())
    }

    fn root_credential(&self) -> Option<Credential> {
        self.options.auth.as_ref().map(|_| password_credential(ROOT_USER, ROOT_PASSWORD))
    }

    async fn connect(&self, uri: &str, credential: Option<Credential>) -> Result<Client> {
        let mut options = ClientOptions::parse(uri).await?;
        options.credential = credential;
        options.tls = self.tls.as_ref().map(TlsFiles::driver_settings);
        options.app_name = Some("cutover-rig".to_owned());
        options.server_selection_timeout = Some(PATIENCE);
        Ok(Client::with_options(options)?)
    }

    fn log_end(&self, member: usize) -> String {
        self.members[member].log_end()
    }
}

fn copy_folder(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_folder(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}

impl Drop for ReplicaSet {
    fn drop(&mut self) {
        // All of them first: one that is left alone would write into the folder while it is
        // removed.
        for member in &self.members {
            let _ = member.server.signal(Signal::KILL);
        }
    }
}

fn password_credential(name: &str, password: &str) -> Credential {
    Credential::builder()
        .username(name.to_owned())
        .password(password.to_owned())
        .source("admin".to_owned())
        .build()
}

fn is_primary(hello: &Document) -> bool {
    hello.get_bool("isWritablePrimary").unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use super::{Options, ReplicaSet};
    use mongodb::bson::doc;

    #[tokio::test]
    async fn a_version_is_started_by_its_name() {
        let set =
            ReplicaSet::start(Options { version: Some("5.0.32".to_owned()), ..Options::default() })
                .await
                .unwrap();
        let info = set
            .client()
            .await
            .unwrap()
            .database("admin")
            .run_command(doc! { "buildInfo": 1 })
            .await
            .unwrap();
        assert_eq!(info.get_str("version").unwrap(), "5.0.32");
    }
}
