//! Errors that an operator can see: each has a code, a cause in words and a remedy.
//!
//! A code never changes its meaning and is never used again. `schemas/errors/` has a page for each.

use std::fmt;

use serde::{Deserialize, Serialize};

/// An error with its code, what happened, and what to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    /// What kind of error.
    pub code: FaultCode,
    /// What happened, naming the host, namespace or file.
    pub message: String,
    /// What to do about it.
    pub remedy: String,
    /// Whether the daemon tries again by itself.
    pub retryable: bool,
}

impl Fault {
    /// A fault of this code with the catalogue's remedy.
    #[must_use]
    pub fn new(code: FaultCode, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            remedy: code.remedy().to_owned(),
            retryable: code.is_retryable(),
        }
    }

    /// The same with a remedy that fits the case better.
    #[must_use]
    pub fn with_remedy(mut self, remedy: impl Into<String>) -> Self {
        self.remedy = remedy.into();
        self
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code, self.message)
    }
}

impl std::error::Error for Fault {}

macro_rules! catalogue {
    ($($(#[$doc:meta])* $variant:ident = $code:literal, $retry:literal, $remedy:literal;)*) => {
        /// The kinds of error. The number is the contract; the name is ours.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub enum FaultCode {
            $($(#[$doc])* #[serde(rename = $code)] $variant,)*
        }

        impl FaultCode {
            /// Every code, in order.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The code as it is printed, such as `CUT0012`.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $code,)* }
            }

            /// What to do, where the place of the error knows nothing better.
            #[must_use]
            pub const fn remedy(self) -> &'static str {
                match self { $(Self::$variant => $remedy,)* }
            }

            /// Whether trying again can help without anybody's doing.
            #[must_use]
            pub const fn is_retryable(self) -> bool {
                match self { $(Self::$variant => $retry,)* }
            }
        }
    };
}

catalogue! {
    /// The HCL does not parse or does not pass its checks.
    InvalidConfiguration = "CUT0001", false, "correct the file at the place shown";
    /// The daemon cannot be reached.
    DaemonUnreachable = "CUT0003", true, "start cutoverd, or name its socket with --endpoint or \
         CUTOVER_ENDPOINT";
    /// The daemon refused the caller.
    NotPermitted = "CUT0004", false, "run the command as the user that runs cutoverd";
    /// The daemon and this program speak different versions of the API.
    VersionMismatch = "CUT0005", false, "use cutover and cutoverd of the same version";
    /// Another daemon holds the state directory.
    StateDirInUse = "CUT0006", false, "stop the other cutoverd, or give this one another \
         --state-dir";
    /// The state directory cannot be used.
    StateDirUnusable = "CUT0007", false, "make the state directory writable for the user that \
         runs cutoverd, with free space";
    /// No migration of that name.
    UnknownMigration = "CUT0008", false, "`cutover status` lists the migrations";
    /// The migration has changed since the plan was made.
    PlanOutdated = "CUT0009", false, "run `cutover plan` again and review it";
    /// The act does not fit the run's state.
    WrongState = "CUT0010", false, "`cutover status` shows where the run stands";
    /// A host name does not resolve.
    HostNotFound = "CUT0011", true, "check the host name in the URI and the resolver of the \
         daemon's machine";
    /// A host does not take connections.
    Unreachable = "CUT0012", true, "check that mongod runs, its port, and the firewall between \
         the daemon's machine and it";
    /// The TLS handshake fails.
    TlsFailed = "CUT0013", false, "check tls.ca_file, the server's certificate and its names, and \
         the client certificate";
    /// The credentials are not accepted.
    AuthenticationFailed = "CUT0014", false, "check username, the password's reference and \
         authSource";
    /// A secret cannot be read.
    SecretUnavailable = "CUT0015", false, "set the variable in the daemon's environment, or make \
         the file readable for it";
    /// The user lacks privileges.
    MissingPrivileges = "CUT0016", false, "grant the roles that the message names";
    /// The source is a standalone server: it has no oplog to follow.
    StandaloneSource = "CUT0017", false, "restart the source with --replSet and run \
         rs.initiate(); one member is enough";
    /// The destination has data already.
    DestinationNotEmpty = "CUT0018", false, "empty the destination, narrow `namespaces`, or set \
         existing_data = \"drop\" and review the plan's list";
    /// Source and destination are one deployment.
    SameDeployment = "CUT0019", false, "correct one of the two URIs";
    /// The server's version cannot be used.
    UnsupportedVersion = "CUT0020", false, "use MongoDB 5.0 or newer, and a destination that is \
         not older than the source";
    /// Something in scope cannot be migrated by this version.
    UnsupportedNamespace = "CUT0021", false, "leave the namespace out with namespaces.exclude, or \
         migrate it by other means";
    /// The token is not this run's.
    WrongToken = "CUT0022", false, "take the token from `cutover status NAME` while the run is \
         ready";
    /// The run is not ready, so that it cannot cut over.
    NotReady = "CUT0023", false, "wait until `cutover status` says ready; it lists what is missing";
    /// The oplog no longer holds where the run stands.
    ResumePointLost = "CUT0024", false, "raise `generation` to run again from scratch, with a \
         larger oplog on the source";
    /// The window closed.
    WindowExpired = "CUT0025", false, "raise cutover.extensions, or run `cutover extend`, and \
         apply; or raise `generation`";
    /// A unique index cannot be made since the data breaks it.
    UniqueIndexBroken = "CUT0026", false, "remove the duplicates on the source; the message names \
         them";
    /// The drain took longer than `max_downtime`.
    MaxDowntimeExceeded = "CUT0027", false, "acknowledge again when there is less load, or raise \
         cutover.max_downtime";
    /// The source's writes cannot be blocked.
    WriteBlockUnavailable = "CUT0028", false, "use a source of MongoDB 6.0 or newer with the \
         privilege setUserWriteBlockMode, or set source_writes = \"observe\"";
    /// Writes to the source kept coming.
    WritesContinued = "CUT0029", false, "stop the application, then acknowledge again";
    /// The destination refused a write.
    DestinationWriteFailed = "CUT0030", true, "see the server's own message";
    /// A read from the source failed.
    SourceReadFailed = "CUT0031", true, "see the server's own message";
    /// Source and destination differ.
    VerificationMismatch = "CUT0032", false, "`cutover verify NAME` lists the documents";
    /// The daemon met a state that it was not built for.
    Internal = "CUT0033", false, "report it with the daemon's log";
    /// An attribute cannot be changed on a run that exists.
    ImmutableAttribute = "CUT0034", false, "raise `generation` to run again with it";
    /// Another run uses the same destination namespaces.
    DestinationInUse = "CUT0035", false, "complete, cancel or narrow the other migration";
    /// The answer was not `yes`.
    NotConfirmed = "CUT0036", false, "answer `yes`, or pass --auto-approve";
    /// A wait ran out of time.
    WaitTimedOut = "CUT0037", false, "raise --timeout; the daemon goes on regardless";
    /// The run will not reach the phase that was waited for.
    WaitInVain = "CUT0038", false, "`cutover status` shows what is wrong";
    /// Changes of the source's collections or indexes that cannot be carried while the run goes on.
    UnsupportedChange = "CUT0039", false, "raise `generation` to run again from scratch";
    /// A file or the output cannot be written, or a saved plan cannot be read.
    OutputFailed = "CUT0048", false, "check the path, its permissions and the free space";
    /// A live check found something that does not stop the migration.
    CheckWarning = "CUT0049", false, "look into it before the cutover";
    /// A deployment is another one than the run began with, or an earlier state of it.
    OtherDeployment = "CUT0056", false, "make the URI reach the deployment that the run began \
         with, then `cutover resume`; or raise `generation` to run again from scratch";
    /// Chunks or a database of a sharded source moved to another shard while its shards were read.
    ChunksMoved = "CUT0060", false, "keep the balancer off and move nothing until the cutover, \
         then raise `generation`";
    /// The balancer of a sharded source is on.
    BalancerOn = "CUT0061", false, "stop it with sh.stopBalancer(), or have the run do so: \
         sharding { balancer = \"manage\" }";
    /// One shard, or the config server, of a sharded cluster is given as a deployment of its own.
    PartOfCluster = "CUT0062", false, "give the cluster's mongos in the URI";
    /// Not all shards of a sharded source have the same indexes of a collection.
    IndexUneven = "CUT0063", false, "build the index again through the source's mongos, so that \
         every shard has it, or drop it there";
    /// A collection cannot be sharded by its key on the destination.
    ShardKeyUnfit = "CUT0070", false, "declare another key for the collection in the block \
         `sharding`, and raise `generation` where a run has begun";
    /// Another daemon has the run, or this daemon's state is an older copy.
    RunHeldElsewhere = "CUT0090", false, "see which cutoverd has the run, and stop the others; \
         `cutoverd` on an older copy of a state directory must not go on: see the page of CUT0090";
}

impl fmt::Display for FaultCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
