//! The layout against what `terraform fmt` 1.11.4 makes of the same texts.

use super::layout;

fn laid_out(text: &str) -> String {
    let once = layout("main.hcl", text).unwrap_or_else(|diagnostics| panic!("{diagnostics}"));
    assert_eq!(
        layout("main.hcl", &once).expect("it parses"),
        once,
        "laying out twice changes more"
    );
    once
}

#[test]
fn files_are_laid_out_as_terraform_does() {
    let folder = std::path::Path::new("tests/layout");
    let mut count = 0;
    for entry in std::fs::read_dir(folder).expect("the folder of cases") {
        let path = entry.expect("an entry").path();
        if path.extension().is_some_and(|ending| ending == "in") {
            count += 1;
            let text = std::fs::read_to_string(&path).expect("a case");
            let expected = std::fs::read_to_string(path.with_extension("out"))
                .expect("what terraform fmt made of it");
            assert_eq!(laid_out(&text), expected, "{}", path.display());
        }
    }
    assert!(count >= 3, "only {count} cases");
}

#[test]
fn what_does_not_parse_is_told_and_not_touched() {
    let diagnostics = layout("main.hcl", "a = {\n").expect_err("it is open");
    assert!(diagnostics.render(false).contains("main.hcl line 1"), "{diagnostics}");
}

#[test]
fn line_ends_marks_and_missing_ends_stay() {
    assert_eq!(laid_out("\u{feff}a=1\r\nbc =  2  \r\n"), "\u{feff}a  = 1\r\nbc = 2\r\n");
    assert_eq!(laid_out("\u{feff}\u{feff}a=1"), "\u{feff}\u{feff}a = 1");
    assert_eq!(laid_out(""), "");
    assert_eq!(laid_out("a=1"), "a = 1");
}

#[test]
fn numbers_and_the_dot_between_them_stay_apart() {
    // An index of old, which nobody should write: without the space it would be another number.
    assert_eq!(laid_out("a = range(1. 100000)\nb =1. 1.5\n"), "a = range(1. 100000)\nb = 1. 1.5\n");
    assert_eq!(laid_out("a = x.0.5\n"), "a = x.0.5\n");
}

#[test]
fn a_comment_ends_behind_its_beginning() {
    assert_eq!(laid_out("a=1 /*/* one = \"\n*/\nbc =2\n"), "a  = 1 /*/* one = \"\n*/\nbc = 2\n");
}
