//! Tests of whole declarations.
