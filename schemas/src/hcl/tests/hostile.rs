//! Texts that somebody made to break the loader: it answers, soon, without a panic, and with little
//! memory.

use super::*;

/// Loads a text in a debug build within a time that is generous on a busy machine, and gives the
/// first summary.
fn first_summary(text: &str) -> String {
    let start = Instant::now();
    let result = load_text(text, &Inputs::default());
    let taken = start.elapsed();
    assert!(taken < Duration::from_secs(20), "{taken:?} for {} bytes", text.len());
    match result {
        Ok(_) => "good".to_owned(),
        Err(diagnostics) => {
            let summary = diagnostics.iter().next().expect("at least one").summary.clone();
            assert!(diagnostics.render(true).len() < 1 << 20, "the diagnostics are too long");
            summary
        }
    }
}

#[test]
fn deep_nesting_does_not_overflow_the_stack() {
    const DEEP: usize = 100_000;
    for (open, close) in [
        ("[", "]"),
        ("{a=", "}"),
        ("(", ")"),
        ("!", ""),
        ("-", ""),
        ("f(", ")"),
        ("\"${", "}\""),
        ("a[", "]"),
        ("1+", ""),
        ("true?", ":1"),
    ] {
        let text = format!("locals {{\n x = {}1{}\n}}\n", open.repeat(DEEP), close.repeat(DEEP));
        assert_ne!(first_summary(&text), "good", "{open}");
    }
    assert_ne!(first_summary(&format!("{}{}", "a {\n".repeat(DEEP), "}\n".repeat(DEEP))), "good");
    assert_ne!(
        first_summary(&format!("locals {{\n x = <<E\n{}\nE\n}}\n", "%{ if true }".repeat(DEEP))),
        "good"
    );
    // What has no end is not deep.
    assert_ne!(first_summary(&format!("locals {{\n x = a{}\n}}\n", ".b".repeat(DEEP))), "good");
    assert_ne!(first_summary(&format!("locals {{\n x = a{}\n}}\n", "[0]".repeat(DEEP))), "good");
}

#[test]
fn nesting_at_the_parsers_bound_is_evaluated() {
    let deep = format!("locals {{\n x = {}1{}\n}}\n", "[for y in [".repeat(30), "]: y]".repeat(30));
    assert_eq!(first_summary(&(deep + &migration(""))), "good");
    let conditions = format!("locals {{\n x = {}1\n}}\n", "true ? 1 : ".repeat(60));
    assert_eq!(first_summary(&(conditions + &migration(""))), "good");
}

#[test]
fn large_files_are_read_in_time() {
    let attributes: String = (0..20_000).map(|n| format!("  name_{n} = {n}\n")).collect();
    assert_eq!(first_summary(&format!("locals {{\n{attributes}}}\n{}", migration(""))), "good");
    let list = "\"db.c\", ".repeat(50_000);
    assert_eq!(
        first_summary(&migration(&format!("namespaces {{\n include = [{list}]\n}}"))),
        "good"
    );
    assert_ne!(
        first_summary(&migration(&format!(
            "namespaces {{\n include = [{}]\n}}",
            "\"x\", ".repeat(50_000)
        ))),
        "good"
    );
    assert_ne!(first_summary(&"a\n".repeat(100_000)), "good");
    assert_ne!(first_summary(&"x {\n}\n".repeat(50_000)), "good");
    for hostile in [
        "password = \"",
        "password = {",
        "password {",
        "password = <<A\n",
        "password=x&",
        "password",
        "password = {\"\\",
    ] {
        assert_ne!(first_summary(&hostile.repeat(50_000)), "good");
    }
    assert_ne!(first_summary(&"mongodb://".repeat(50_000)), "good");
    assert_ne!(first_summary(&"mongodb://a:b@".repeat(50_000)), "good");
}

#[test]
fn long_chains_of_locals_are_evaluated() {
    let chain: String = (1..5_000).map(|n| format!("  a{n} = local.a{} + 1\n", n - 1)).collect();
    assert_eq!(
        first_summary(&format!("locals {{\n  a0 = 0\n{chain}}}\n{}", migration(""))),
        "good"
    );
    let circle: String =
        (0..5_000).map(|n| format!("  a{n} = local.a{}\n", (n + 1) % 5_000)).collect();
    assert_eq!(
        first_summary(&format!("locals {{\n{circle}}}\n")),
        "local values refer to each other in a circle"
    );
}

#[test]
fn little_text_cannot_ask_for_much_memory() {
    const MUCH: &str = "the expressions make too much";
    let doubling = |start: &str, step: &str| -> String {
        let steps: String = (1..60)
            .map(|n| format!("  a{n} = {}\n", step.replace('@', &format!("local.a{}", n - 1))))
            .collect();
        first_summary(&format!("locals {{\n  a0 = {start}\n{steps}}}\n"))
    };
    assert_eq!(doubling("\"x\"", "\"${@}${@}\""), MUCH);
    assert_eq!(doubling("[1]", "concat(@, @)"), MUCH);
    assert_eq!(doubling("[1]", "[for x in [1, 2] : @]"), MUCH);
    assert_eq!(doubling("\"aa\"", "replace(@, \"a\", @)"), "invalid call of replace");
    assert_eq!(doubling("\"a\"", "join(@, [@, @])"), MUCH);
    assert_eq!(doubling("\"\\n\"", "indent(1000, \"${@}${@}\")"), MUCH);
    let loops =
        "[for a in range(1000) : [for b in range(1000) : [for c in range(1000) : a + b + c]]]";
    assert_eq!(first_summary(&format!("locals {{\n  x = {loops}\n}}\n")), MUCH);
    let template = "\"%{ for a in range(1000) }%{ for b in range(1000) }%{ for c in range(1000) \
         }%{ endfor }%{ endfor }%{ endfor }\"";
    assert_eq!(first_summary(&format!("locals {{\n  x = {template}\n}}\n")), MUCH);
    assert_eq!(
        first_summary("locals {\n  x = format(\"%100000000d\", 1)\n}\n"),
        "invalid call of format"
    );
}

/// A generator of numbers without any quality but being the same each time.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % bound as u64).expect("below a usize")
    }
}

#[test]
fn any_text_gets_an_answer() {
    let corpus = [
        include_str!("../../../../examples/filtered/main.hcl"),
        include_str!("../../../../examples/filtered/variables.hcl"),
        include_str!("../../../../examples/tls/main.hcl"),
        "locals {\n a = <<-EOT\n  %{ for x, y in [1] ~}\n ${x}\n %{ endfor }\n EOT\n b = [for k, \
         v in {a = 1} : k => v... if v > 0]\n}\n",
    ];
    let pieces = [
        "{",
        "}",
        "[",
        "]",
        "(",
        ")",
        "\"",
        "${",
        "%{",
        "<<EOT\n",
        "EOT\n",
        "=",
        "\n",
        ",",
        ".",
        "*",
        "ä",
        "\u{202e}",
        "\0",
        "\r\n",
        "null",
        "var.",
        "local.",
        "for x in ",
        "://",
        "@",
        "%40",
        "password = ",
        "/*",
        "#",
        "\\u12",
        "...",
        "?",
        ":",
        "1e999",
        "-",
        "!",
    ];
    let mut numbers = Numbers(0x5eed_cafe_f00d_d00d);
    for round in 0..3_000 {
        let mut text = corpus[round % corpus.len()].to_owned();
        for _ in 0..=numbers.below(4) {
            let boundary = |text: &str, mut at: usize| {
                while !text.is_char_boundary(at) {
                    at -= 1;
                }
                at
            };
            let from = boundary(&text, numbers.below(text.len() + 1));
            let to = boundary(&text, (from + numbers.below(12)).min(text.len())).max(from);
            text.replace_range(from..to, pieces[numbers.below(pieces.len())]);
        }
        if let Err(diagnostics) = load_text(&text, &Inputs::default()) {
            assert!(diagnostics.has_errors(), "refused without a reason: {text}");
            assert!(!diagnostics.render(false).is_empty());
        }
    }
}

#[test]
fn secrets_stay_hidden_however_broken_the_rest_is() {
    let secret_lines = [
        "    uri = \"mongodb://u:hunter2@a:27017/?x=y\"\n",
        "    password = \"hunter2\"\n",
        "    password = { plain = \"hunter2\" }\n",
        "    uri = \"mongodb://a/?tlsCertificateKeyFilePassword=hunter2\"\n",
        "    password = var.x ? \"hunter2\" : lower(\"hunter2\")\n",
    ];
    let pieces = [
        "{",
        "}",
        "[",
        "\"",
        "${",
        "<<EOT\n",
        "=",
        "\n",
        "\\",
        "uri = ",
        "password",
        "junk",
        "#",
        "/*",
        "'",
        "(",
        "source {\n",
        "://",
        "@",
    ];
    let mut numbers = Numbers(0xfeed_cafe_f00d_d00d);
    for round in 0..2_000 {
        let mut before = "migration \"orders\" {\n  source {\n".to_owned();
        let mut after =
            "    username = \"u\"\n  }\n  destination {\n    uri = \"mongodb://b\"\n  }\n}\n"
                .to_owned();
        for text in [&mut before, &mut after] {
            let from = numbers.below(text.len() + 1);
            let to = (from + numbers.below(6)).min(text.len());
            text.replace_range(from..to, pieces[numbers.below(pieces.len())]);
        }
        let text = format!("{before}{}{after}", secret_lines[round % secret_lines.len()]);
        let Err(diagnostics) = load_text(&text, &Inputs::default()) else { continue };
        let shown = diagnostics.render(false);
        assert!(!shown.contains("hunter2"), "{text}\n{shown}");
    }
}
