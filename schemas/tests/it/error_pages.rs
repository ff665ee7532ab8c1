//! Every code has a page with its cause and remedy, and no page is without a code.

use std::collections::BTreeSet;
use std::fs;

use schemas::fault::FaultCode;

#[test]
fn every_code_has_a_page() {
    for code in FaultCode::ALL {
        let path = format!("errors/{code}.md");
        let page = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
        assert!(page.starts_with(&format!("# {code}: ")), "{path} does not start with its code");
        let lines = page.lines().count();
        assert!((6..=15).contains(&lines), "{path} has {lines} lines");
        let (cause, remedy) = (page.find("\n## Cause\n"), page.find("\n## Remedy\n"));
        assert!(
            cause.is_some() && cause < remedy,
            "{path} does not say its cause, then its remedy"
        );
    }
}

#[test]
fn no_page_is_without_a_code() {
    let codes: BTreeSet<String> = FaultCode::ALL.iter().map(|code| format!("{code}.md")).collect();
    for entry in fs::read_dir("errors").expect("the folder of pages") {
        let name = entry.expect("an entry").file_name().to_string_lossy().into_owned();
        assert!(codes.contains(&name), "errors/{name} has no code");
    }
}
