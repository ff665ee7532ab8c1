//! The provider under the real Terraform, with real replica sets and the real daemon.
#![expect(clippy::unwrap_used, reason = "a test fails where something is not as it must be")]

mod alone;
mod hold;
mod life;
mod packaging;
mod remote;
mod scene;
mod several;
