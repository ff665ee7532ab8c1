//! The demo's own command line.

/// How the demo is called.
pub(crate) const USAGE: &str = "\
Usage: cargo run --release -p demo [-- OPTIONS]

Migrates a replica set to another one, on this machine, and compares both at the end.

Options:
  --yes            acknowledge the cutover without being asked
  --documents N    how many documents to lay on the source (default 300000)
  --rate N         how many operations a second the application does (default 300)
  --help           print this";

/// What the demo does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Options {
    pub(crate) yes: bool,
    pub(crate) documents: u64,
    pub(crate) rate: u32,
}

/// What was asked for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Invocation {
    Run(Options),
    Help,
}

/// Reads the arguments; an error is a sentence for the caller.
pub(crate) fn parse(arguments: impl IntoIterator<Item = String>) -> Result<Invocation, String> {
    let mut options = Options { yes: false, documents: 300_000, rate: 300 };
    let mut arguments = arguments.into_iter();
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--yes" => options.yes = true,
            "--documents" => options.documents = number(&argument, arguments.next())?,
            "--rate" => options.rate = number(&argument, arguments.next())?,
            "--help" | "-h" => return Ok(Invocation::Help),
            _ => return Err(format!("{argument} is no option of the demo")),
        }
    }
    Ok(Invocation::Run(options))
}

fn number<T: std::str::FromStr>(option: &str, value: Option<String>) -> Result<T, String> {
    let value = value.ok_or_else(|| format!("{option} needs a number"))?;
    value.parse().map_err(|_| format!("{option} needs a number, not {value:?}"))
}

#[cfg(test)]
mod tests {
    use super::{Invocation, Options, parse};

    fn parsed(arguments: &[&str]) -> Result<Invocation, String> {
        parse(arguments.iter().map(|&argument| argument.to_owned()))
    }

    #[test]
    fn options_are_read_and_mistakes_named() {
        let expected = Options { yes: true, documents: 5, rate: 300 };
        assert_eq!(parsed(&["--yes", "--documents", "5"]), Ok(Invocation::Run(expected)));
        assert_eq!(parsed(&["--help"]), Ok(Invocation::Help));
        assert_eq!(
            parsed(&["--documents", "x"]),
            Err("--documents needs a number, not \"x\"".to_owned())
        );
        assert_eq!(parsed(&["--yess"]), Err("--yess is no option of the demo".to_owned()));
    }
}
