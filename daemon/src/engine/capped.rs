//! Capped collections keep an order and have a bound, and lose their oldest documents by
//! themselves.
//!
//! The order is not what the change stream reports: concurrent insertions get their record ids in
//! another order than their oplog entries (the server reserves the entries first), so that even a
//! replica set's members differ in it. Hence
//!
//! * the copy reads each as one part, in natural order, and the tail inserts in the order of the
//!   source's records ([`sequence`]);
//! * both sides are read side by side while the run goes on ([`keeper`], [`order`]), so that what
//!   is in another order all the same (the source had an election) shows before the source is
//!   blocked. It is copied again into a collection aside, which is then renamed over: there is no
//!   moment at which the destination does not have it whole ([`aside`]);
//! * once the source takes no more writes, what came since the last look is compared, and the
//!   counts are.
//!
//! The bound is lifted on the destination until the run finalizes ([`bound`]): nothing evicts
//! there.

pub mod aside;
pub mod bound;
pub mod keeper;
mod order;
pub mod sequence;
