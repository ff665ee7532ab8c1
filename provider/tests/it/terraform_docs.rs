//! The documentation is what the schema says.

use std::path::Path;

/// Where the pages are.
const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs");

#[test]
fn the_pages_are_current() {
    for page in provider::terraform::pages() {
        let path = Path::new(FOLDER).join(page.path);
        let written = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(
            written == page.text,
            "{} is not current; write it with: cargo run -p provider --bin \
             terraform-provider-cutover -- docs provider/docs",
            path.display()
        );
    }
}
