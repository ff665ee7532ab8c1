//! Declarations, good and bad, and the pages of the error codes.

mod declarations;
mod error_pages;
