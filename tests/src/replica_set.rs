//! Real replica sets (and standalone servers) on 127.0.0.1, each gone when it is dropped or its test dies.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use mongodb::Client;
use mongodb::bson::{Bson, Document, doc};
use mongodb::options::{AuthMechanism, ClientOptions, Credential, ServerAddress};
use rustix::process::Signal;
use tempfile::TempDir;

use crate::fault_proxy::FaultProxy;
use crate::leash::{Launch, Leashed};
use crate::mongod;
use crate::ports::ReservedPort;
use crate::tls::TlsFiles;

/// The name of the user that may do everything, where there is access control.
pub const ROOT_USER: &str = "root";
/// That user's password.
pub const ROOT_PASSWORD: &str = "rig-root-password";

/// The exit code of a mongod that found its port taken.
const EXIT_ADDRESS_IN_USE: i32 = 48;
/// How long a server may take to start, stop or elect on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(20);

/// What to start.
#[derive(Debug, Clone)]
pub struct Options {
    /// The replica set's name.
    pub name: String,
    /// How many members.
    pub members: usize,
    /// One server that is no replica set.
    pub standalone: bool,
    /// Access control and its users; `None`: everybody may do everything.
    pub auth: Option<Auth>,
    /// TLS for every connection.
    pub tls: Option<TlsMode>,
    /// The oplog's size.
    pub oplog_mb: u32,
    /// Seconds between the no-ops that an idle primary writes; `None`: the server's default, 10.
    pub noop_interval_seconds: Option<u32>,
    /// Every member is reached, also by the others, through a [`FaultProxy`].
    pub proxied: bool,
    /// How long the members wait for a dead primary.
    pub election_timeout: Duration,
    /// The storage engine's cache of each member.
    pub cache_gb: f32,
    /// More arguments for `mongod`.
    pub arguments: Vec<String>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            name: "rs0".to_owned(),
            members: 1,
            standalone: false,
            auth: None,
            tls: None,
            oplog_mb: 1024,
            noop_interval_seconds: None,
            proxied: false,
            election_timeout: Duration::from_secs(5),
            cache_gb: 0.25,
            arguments: Vec::new(),
        }
    }
}

/// Access control: the root user is always there.
#[derive(Debug, Clone, Default)]
pub struct Auth {
    /// Users besides the root user.
    pub users: Vec<User>,
}

/// A user to create.
#[derive(Debug, Clone)]
pub struct User {
    /// Its name; with `password: None` an X.509 subject, in the database `$external`.
    pub name: String,
    /// Its password; `None`: it is known by its certificate.
    pub password: Option<String>,
    /// Its roles: names of roles in `admin`, or documents `{role, db}`.
    pub roles: Vec<Bson>,
}

impl User {
    /// A user of the database `admin` with roles from there.
    #[must_use]
    pub fn new(name: &str, password: &str, roles: &[&str]) -> Self {
        Self {
            name: name.to_owned(),
            password: Some(password.to_owned()),
            roles: roles.iter().map(|&role| role.into()).collect(),
        }
    }

    /// A user known by the subject of its certificate.
    #[must_use]
    pub fn x509(subject: &str, roles: &[&str]) -> Self {
        let role = |&role: &&str| Bson::Document(doc! { "role": role, "db": "admin" });
        Self { name: subject.to_owned(), password: None, roles: roles.iter().map(role).collect() }
    }
}

/// How TLS is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TlsMode {
    /// Clients may come without a certificate.
    ServerCertificate,
    /// Clients must show a certificate of the same authority.
    ClientCertificate,
}

/// A running replica set, or standalone server. Dropping it kills it and removes its data.
#[derive(Debug)]
pub struct ReplicaSet {
    options: Options,
    members: Vec<Member>,
    tls: Option<TlsFiles>,
    _folder: TempDir,
}

#[derive(Debug)]
struct Member {
    port: ReservedPort,
    folder: PathBuf,
    /// Held also while the server is down: it removes the data should the test die then.
    server: Leashed,
    proxy: Option<FaultProxy>,
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
        tokio::task::spawn_blocking(mongod::path).await??;
        let folder = tempfile::Builder::new().prefix("cutover-rig-").tempdir().context("failed to create a folder")?;
        let tls = options.tls.map(|_| TlsFiles::write(folder.path())).transpose()?;
        if options.auth.is_some() && !options.standalone {
            let key = folder.path().join("key");
            fs::write(&key, "cutoverrigcutoverrigcutoverrig12")?;
            fs::set_permissions(&key, Permissions::from_mode(0o600))?;
        }
        let mut members = Vec::new();
        for index in 0..options.members {
            members.push(Member::start(&options, tls.as_ref(), folder.path(), index).await?);
        }
        let set = Self { options, members, tls, _folder: folder };
        set.initiate()
            .await
            .with_context(|| format!("failed to initiate replica set {}: {}", set.options.name, set.log_end(0)))?;
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
        let port = member.proxy.as_ref().map_or(member.port.number(), |proxy| proxy.address().port());
        format!("127.0.0.1:{port}")
    }

    /// The replica set's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.options.name
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
                if member.server.is_running() && self.hello(index).await.is_ok_and(|hello| is_primary(&hello)) {
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

    /// Starts a member again, on its port and its data, and waits until it is primary or follows one.
    ///
    /// # Errors
    /// When it runs, or does not start.
    pub async fn restart_member(&mut self, member: usize) -> Result<()> {
        let (options, tls) = (&self.options, self.tls.as_ref());
        let slot = &mut self.members[member];
        ensure!(!slot.server.is_running(), "member {member} runs already");
        let server = launch(options, tls, &slot.folder, slot.port.number())?;
        let mut old = std::mem::replace(&mut slot.server, server);
        old.spare_files();
        drop(old);
        slot.wait_until_listening().await?;
        self.wait_for(member, |hello| is_primary(hello) || hello.get_bool("secondary").unwrap_or(false)).await
    }

    /// Makes the primary step down, so that another member is elected; a set of one elects itself again after `seconds`.
    ///
    /// # Errors
    /// When the primary refuses.
    pub async fn step_down(&self, seconds: u32) -> Result<()> {
        let primary = self.primary().await?;
        let command = doc! { "replSetStepDown": seconds, "secondaryCatchUpPeriodSecs": 0, "force": true };
        self.member_client(primary).await?.database("admin").run_command(command).await?;
        Ok(())
    }

    async fn initiate(&self) -> Result<()> {
        if self.options.standalone {
            return self.wait_for(0, is_primary).await;
        }
        let members: Vec<Document> = (0..self.members.len())
            .map(|index| doc! { "_id": i64::try_from(index).unwrap_or_default(), "host": self.host(index) })
            .collect();
        let timeout = i64::try_from(self.options.election_timeout.as_millis()).context("an election timeout in ms")?;
        let settings = doc! { "electionTimeoutMillis": timeout, "heartbeatIntervalMillis": (timeout / 10).clamp(100, 2000) };
        let config = doc! { "_id": &self.options.name, "members": members, "settings": settings };
        let first = self.connect(&self.direct_uri(0), None).await?;
        first.database("admin").run_command(doc! { "replSetInitiate": config }).await?;
        if self.members.len() > 1 {
            // Members wait out an election timeout before the first election, unless one is told to stand at once.
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
        let create = doc! { "createUser": ROOT_USER, "pwd": ROOT_PASSWORD, "roles": ["root", "__system"] };
        nobody.database("admin").run_command(create).await?;
        let root = self.client().await?;
        for user in &auth.users {
            let mut create = doc! { "createUser": &user.name, "roles": user.roles.clone() };
            if let Some(password) = &user.password {
                create.insert("pwd", password);
            }
            let database = if user.password.is_some() { "admin" } else { "$external" };
            root.database(database).run_command(create).await.with_context(|| format!("failed to create {}", user.name))?;
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
            ensure!(start.elapsed() < PATIENCE, "member {member} of {} is not there: {last}", self.options.name);
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
        log_end(&self.members[member].folder)
    }
}

impl Drop for ReplicaSet {
    fn drop(&mut self) {
        // All of them first: one that is left alone would write into the folder while it is removed.
        for member in &self.members {
            let _ = member.server.signal(Signal::KILL);
        }
    }
}

impl Member {
    async fn start(options: &Options, tls: Option<&TlsFiles>, set_folder: &Path, index: usize) -> Result<Self> {
        let folder = set_folder.join(format!("member-{index}"));
        fs::create_dir(&folder).with_context(|| format!("failed to create {}", folder.display()))?;
        loop {
            let port = ReservedPort::take()?;
            let server = launch(options, tls, &folder, port.number())?;
            let mut member = Self { port, folder: folder.clone(), server, proxy: None };
            match member.wait_until_listening().await {
                Ok(()) => {
                    if options.proxied {
                        let target = format!("127.0.0.1:{}", member.port.number()).parse().context("an address")?;
                        member.proxy = Some(FaultProxy::start(target)?);
                    }
                    return Ok(member);
                }
                Err(StartFailure::AddressInUse) => member.server.spare_files(),
                Err(StartFailure::Other(error)) => return Err(error),
            }
        }
    }

    async fn wait_until_listening(&mut self) -> Result<(), StartFailure> {
        let start = Instant::now();
        let address = ServerAddress::Tcp { host: "127.0.0.1".to_owned(), port: Some(self.port.number()) };
        loop {
            if tokio::net::TcpStream::connect(("127.0.0.1", self.port.number())).await.is_ok() {
                return Ok(());
            }
            if !self.server.is_running() {
                if self.server.wait(PATIENCE).await? == EXIT_ADDRESS_IN_USE {
                    return Err(StartFailure::AddressInUse);
                }
                return Err(anyhow!("mongod did not start on {address}: {}", log_end(&self.folder)).into());
            }
            if start.elapsed() > PATIENCE {
                return Err(anyhow!("mongod does not listen on {address}: {}", log_end(&self.folder)).into());
            }
            tokio::time::sleep(POLL).await;
        }
    }
}

/// Why a server is not there.
#[derive(Debug)]
enum StartFailure {
    AddressInUse,
    Other(anyhow::Error),
}

impl From<anyhow::Error> for StartFailure {
    fn from(error: anyhow::Error) -> Self {
        Self::Other(error)
    }
}

impl From<StartFailure> for anyhow::Error {
    fn from(failure: StartFailure) -> Self {
        match failure {
            StartFailure::AddressInUse => anyhow!("the server's port is taken"),
            StartFailure::Other(error) => error,
        }
    }
}

fn launch(options: &Options, tls: Option<&TlsFiles>, folder: &Path, port: u16) -> Result<Leashed> {
    let set_folder = folder.parent().context("a member's folder lies in its set's")?;
    let data = folder.join("data");
    fs::create_dir_all(&data).with_context(|| format!("failed to create {}", data.display()))?;
    let mut launch = Launch::new(mongod::path()?, folder.join("mongod.log"))
        .remove_afterwards(set_folder)
        .args(["--bind_ip", "127.0.0.1", "--port", &port.to_string(), "--nounixsocket", "--dbpath"])
        .args([&data])
        .args(["--wiredTigerCacheSizeGB", &options.cache_gb.to_string()])
        .args(["--setParameter", "enableTestCommands=1", "--setParameter", "diagnosticDataCollectionEnabled=false"])
        // A primary told to stop would otherwise wait 15 s for others to take over.
        .args(["--setParameter", "shutdownTimeoutMillisForSignaledShutdown=100"]);
    if !options.standalone {
        launch = launch.args(["--replSet", &options.name, "--oplogSize", &options.oplog_mb.to_string()]);
    }
    if let Some(seconds) = options.noop_interval_seconds {
        let interval = format!("periodicNoopIntervalSecs={seconds}");
        launch = launch.args(["--setParameter", "writePeriodicNoops=true", "--setParameter", &interval]);
    }
    if options.auth.is_some() {
        launch =
            if options.standalone { launch.args(["--auth"]) } else { launch.args(["--keyFile"]).args([set_folder.join("key")]) };
    }
    if let (Some(mode), Some(files)) = (options.tls, tls) {
        launch = launch.args(["--tlsMode", "requireTLS", "--tlsCAFile"]).args([&files.ca_file]);
        launch = launch.args(["--tlsCertificateKeyFile"]).args([&files.server_file]);
        if mode == TlsMode::ServerCertificate {
            launch = launch.args(["--tlsAllowConnectionsWithoutCertificates"]);
        }
    }
    Leashed::start(launch.args(&options.arguments))
}

fn password_credential(name: &str, password: &str) -> Credential {
    Credential::builder().username(name.to_owned()).password(password.to_owned()).source("admin".to_owned()).build()
}

fn is_primary(hello: &Document) -> bool {
    hello.get_bool("isWritablePrimary").unwrap_or(false)
}

fn log_end(folder: &Path) -> String {
    let log = fs::read_to_string(folder.join("mongod.log")).unwrap_or_default();
    let lines: Vec<&str> = log.lines().collect();
    format!("the end of its log:\n{}", lines[lines.len().saturating_sub(20)..].join("\n"))
}
