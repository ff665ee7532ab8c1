//! Colour, where it is wanted.

use std::fmt::Display;

use anstyle::{AnsiColor, Style};

/// Colours text, or leaves it as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Paint {
    on: bool,
}

impl Paint {
    /// No colour.
    pub const PLAIN: Self = Self { on: false };

    /// Colours where `on`.
    #[must_use]
    pub const fn new(on: bool) -> Self {
        Self { on }
    }

    /// Whether it colours.
    #[must_use]
    pub const fn is_on(self) -> bool {
        self.on
    }

    fn styled(self, style: Style, text: impl Display) -> String {
        if self.on { format!("{style}{text}{style:#}") } else { text.to_string() }
    }

    /// What is new or well.
    #[must_use]
    pub fn good(self, text: impl Display) -> String {
        self.styled(AnsiColor::Green.on_default(), text)
    }

    /// What changes or is to be looked at.
    #[must_use]
    pub fn notable(self, text: impl Display) -> String {
        self.styled(AnsiColor::Yellow.on_default(), text)
    }

    /// What goes or is wrong.
    #[must_use]
    pub fn bad(self, text: impl Display) -> String {
        self.styled(AnsiColor::Red.on_default().bold(), text)
    }

    /// What says what something is about.
    #[must_use]
    pub fn bold(self, text: impl Display) -> String {
        self.styled(Style::new().bold(), text)
    }

    /// What matters less.
    #[must_use]
    pub fn faint(self, text: impl Display) -> String {
        self.styled(Style::new().dimmed(), text)
    }
}
