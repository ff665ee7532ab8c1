//! The server's error codes by their names in its `src/mongo/base/error_codes.yml`, as far as the
//! daemon decides by them.

#![expect(missing_docs, reason = "the names are the server's")]

pub const BAD_VALUE: i32 = 2;
pub const HOST_UNREACHABLE: i32 = 6;
pub const HOST_NOT_FOUND: i32 = 7;
pub const UNKNOWN_ERROR: i32 = 8;
pub const USER_NOT_FOUND: i32 = 11;
pub const UNAUTHORIZED: i32 = 13;
pub const AUTHENTICATION_FAILED: i32 = 18;
pub const ILLEGAL_OPERATION: i32 = 20;
pub const ALREADY_INITIALIZED: i32 = 23;
pub const LOCK_TIMEOUT: i32 = 24;
pub const NAMESPACE_NOT_FOUND: i32 = 26;
pub const INDEX_NOT_FOUND: i32 = 27;
pub const ROLE_NOT_FOUND: i32 = 31;
pub const CURSOR_NOT_FOUND: i32 = 43;
pub const LOCK_BUSY: i32 = 46;
pub const NAMESPACE_EXISTS: i32 = 48;
pub const MAX_TIME_MS_EXPIRED: i32 = 50;
pub const COMMAND_NOT_FOUND: i32 = 59;
pub const SHARD_KEY_NOT_FOUND: i32 = 61;
pub const WRITE_CONCERN_FAILED: i32 = 64;
pub const CANNOT_CREATE_INDEX: i32 = 67;
pub const INVALID_OPTIONS: i32 = 72;
pub const INDEX_OPTIONS_CONFLICT: i32 = 85;
pub const INDEX_KEY_SPECS_CONFLICT: i32 = 86;
pub const NETWORK_TIMEOUT: i32 = 89;
pub const SHUTDOWN_IN_PROGRESS: i32 = 91;
pub const OPERATION_FAILED: i32 = 96;
pub const LOCK_FAILED: i32 = 107;
pub const WRITE_CONFLICT: i32 = 112;
pub const COMMAND_NOT_SUPPORTED: i32 = 115;
pub const CONFLICTING_OPERATION_IN_PROGRESS: i32 = 117;
pub const FAILED_TO_SATISFY_READ_PREFERENCE: i32 = 133;
pub const READ_CONCERN_MAJORITY_NOT_AVAILABLE_YET: i32 = 134;
pub const CAPPED_POSITION_LOST: i32 = 136;
pub const STALE_EPOCH: i32 = 150;
pub const COMMAND_NOT_SUPPORTED_ON_VIEW: i32 = 166;
pub const CANNOT_INDEX_PARALLEL_ARRAYS: i32 = 171;
pub const QUERY_PLAN_KILLED: i32 = 175;
pub const PRIMARY_STEPPED_DOWN: i32 = 189;
pub const CANNOT_BUILD_INDEX_KEYS: i32 = 201;
pub const NETWORK_INTERFACE_EXCEEDED_TIME_LIMIT: i32 = 202;
pub const KEY_NOT_FOUND: i32 = 211;
pub const CLOSE_CHANGE_STREAM: i32 = 222;
pub const CURSOR_KILLED: i32 = 237;
pub const NOT_IMPLEMENTED: i32 = 238;
pub const SNAPSHOT_TOO_OLD: i32 = 239;
pub const SNAPSHOT_UNAVAILABLE: i32 = 246;
pub const STALE_DB_VERSION: i32 = 249;
pub const EXCEEDED_TIME_LIMIT: i32 = 262;
pub const CHANGE_STREAM_FATAL_ERROR: i32 = 280;
pub const CHANGE_STREAM_HISTORY_LOST: i32 = 286;
pub const CONNECTION_POOL_EXPIRED: i32 = 317;
pub const CANNOT_CONVERT_INDEX_TO_UNIQUE: i32 = 359;
pub const CANNOT_DROP_SHARD_KEY_INDEX: i32 = 370;
pub const CANNOT_INSERT_TIMESERIES_BUCKETS_WITH_MIXED_SCHEMA: i32 = 408;
pub const SOCKET_EXCEPTION: i32 = 9001;
pub const LEGACY_NOT_PRIMARY: i32 = 10058;
pub const NOT_WRITABLE_PRIMARY: i32 = 10107;
pub const BSON_OBJECT_TOO_LARGE: i32 = 10334;
pub const DUPLICATE_KEY: i32 = 11000;
pub const INTERRUPTED_AT_SHUTDOWN: i32 = 11600;
pub const INTERRUPTED_DUE_TO_REPL_STATE_CHANGE: i32 = 11602;
pub const DATABASE_DIFFER_CASE: i32 = 13297;
pub const STALE_CONFIG: i32 = 13388;
pub const NOT_PRIMARY_NO_SECONDARY_OK: i32 = 13435;
pub const NOT_PRIMARY_OR_SECONDARY: i32 = 13436;
pub const OUT_OF_DISK_SPACE: i32 = 14031;
/// Hashed indexes do not take arrays (`ExpressionKeysPrivate::getHashKeys`); it has no name there.
pub const HASHED_INDEX_ON_ARRAY: i32 = 16766;
/// The role is there already (`user_management_commands`); it has no name there.
pub const ROLE_EXISTS: i32 = 51002;
/// The user is there already (`user_management_commands`); it has no name there.
pub const USER_EXISTS: i32 = 51003;
