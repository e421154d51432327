//! A policy file's text and what was found wrong with it: every finding with its position, none with a secret.

use std::{cell::RefCell, fmt, sync::Arc};

use serde::Serialize;

use super::tree::{Mark, Span};

/// One file's name and content.
#[derive(Debug)]
pub struct SourceFile {
    pub name: Arc<str>,
    pub text: String,
}

/// One mistake: where, what, and what was probably meant.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct LoadError {
    pub file: Arc<str>,
    /// From 1; 0 when the whole file is meant.
    pub line: usize,
    /// From 1, in characters.
    pub column: usize,
    pub message: String,
    /// What to write instead.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub help: Option<String>,
    /// The offending line, without what may be a secret.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// Characters to underline.
    #[serde(skip)]
    pub width: usize,
}

/// Everything that is wrong with the files that were loaded together.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
#[serde(transparent)]
pub struct LoadErrors(pub Vec<LoadError>);

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => write!(f, "{}: {}", self.file, self.message)?,
            line => write!(f, "{}:{line}:{}: {}", self.file, self.column, self.message)?,
        }
        if let Some(source) = &self.source {
            let gutter = self.line.to_string();
            let pad: String =
                source.chars().take(self.column.saturating_sub(1)).map(|c| if c == '\t' { '\t' } else { ' ' }).collect();
            write!(f, "\n  {gutter} | {source}\n  {:width$} | {pad}{}", "", "^".repeat(self.width.max(1)), width = gutter.len())?;
            if let Some(help) = &self.help {
                write!(f, " {help}")?;
            }
        } else if let Some(help) = &self.help {
            write!(f, "\n  {help}")?;
        }
        Ok(())
    }
}

impl fmt::Display for LoadErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for error in &self.0 {
            writeln!(f, "{error}\n")?;
        }
        let files: std::collections::BTreeSet<&str> = self.0.iter().map(|error| &*error.file).collect();
        let s = |count: usize| if count == 1 { "" } else { "s" };
        write!(f, "{} error{} in {} file{}", self.0.len(), s(self.0.len()), files.len(), s(files.len()))
    }
}

impl std::error::Error for LoadErrors {}

/// Collects the findings of one file.
pub(super) struct Reporter<'s> {
    source: &'s SourceFile,
    errors: RefCell<Vec<LoadError>>,
    hidden: RefCell<Vec<Span>>,
}

impl<'s> Reporter<'s> {
    pub(super) fn new(source: &'s SourceFile) -> Self {
        Self { source, errors: RefCell::default(), hidden: RefCell::default() }
    }

    pub(super) fn source(&self) -> &'s SourceFile {
        self.source
    }

    pub(super) fn error(&self, span: Span, message: impl Into<String>) {
        self.push(span, message.into(), None);
    }

    pub(super) fn error_with(&self, span: Span, message: impl Into<String>, help: impl Into<String>) {
        self.push(span, message.into(), Some(help.into()));
    }

    /// An error with a suggestion, when a known word is close to what was written.
    pub(super) fn misspelt(&self, span: Span, message: impl Into<String>, written: &str, known: &[&str]) {
        let help = closest(written, known)
            .map(|word| format!("did you mean `{word}`?"))
            .or_else(|| (!known.is_empty() && known.len() <= LISTED_WORDS_MAX).then(|| format!("one of: {}", known.join(", "))));
        self.push(span, message.into(), help);
    }

    /// The value may be a secret that was written where it does not belong: it is never shown.
    pub(super) fn hide(&self, span: Span) {
        self.hidden.borrow_mut().push(span);
    }

    /// A line that could not even be parsed may hold a secret: in a file with credentials it is not shown.
    pub(super) fn syntax(&self, mark: Mark, message: String) {
        let end = Mark { column: mark.column + 1, ..mark };
        if self.source.text.to_lowercase().contains("credential") {
            self.hide(Span { start: Mark { column: 1, ..mark }, end: Mark { column: usize::MAX, ..mark } });
        }
        self.push(Span { start: mark, end }, message, None);
    }

    pub(super) fn count(&self) -> usize {
        self.errors.borrow().len()
    }

    /// The findings in the order of the file, with their lines.
    pub(super) fn finish(self) -> Vec<LoadError> {
        let hidden = self.hidden.take();
        let mut errors = self.errors.take();
        errors.sort_by_key(|error| (error.line, error.column));
        for error in &mut errors {
            error.source = (error.line > 0).then(|| visible(self.line(error.line), error.line, &hidden));
        }
        errors
    }

    fn line(&self, line: usize) -> &'s str {
        self.source.text.lines().nth(line.saturating_sub(1)).unwrap_or("")
    }

    fn push(&self, span: Span, message: String, help: Option<String>) {
        let mut errors = self.errors.borrow_mut();
        let known =
            |error: &LoadError| (error.line, error.column) == (span.start.line, span.start.column) && error.message == message;
        if errors.len() >= ERRORS_MAX || errors.iter().any(known) {
            return;
        }
        let end = if span.end.line == span.start.line {
            span.end.column
        } else {
            self.line(span.start.line).trim_end().chars().count() + 1
        };
        errors.push(LoadError {
            file: Arc::clone(&self.source.name),
            line: span.start.line,
            column: span.start.column,
            message,
            help,
            source: None,
            width: end.saturating_sub(span.start.column).clamp(1, UNDERLINE_MAX),
        });
    }
}

/// The known word nearest to what was written, if it is near enough to be meant.
pub(super) fn closest<'w>(written: &str, known: &[&'w str]) -> Option<&'w str> {
    let distance = |word: &str| strsim::damerau_levenshtein(&written.to_lowercase(), &word.to_lowercase());
    let near = |word: &&&str| distance(word) <= 1 + word.len() / 4;
    if written.len() > WORD_BYTES_MAX {
        return None;
    }
    known.iter().filter(near).min_by_key(|word| distance(word)).copied()
}

/// A line with hidden spans and control characters made harmless, cut to a readable length.
fn visible(text: &str, line: usize, hidden: &[Span]) -> String {
    let covers = |column: usize| {
        hidden.iter().any(|span| {
            (span.start.line, span.start.column) <= (line, column) && (line, column) < (span.end.line, span.end.column)
        })
    };
    let shown = text.trim_end().chars().take(LINE_CHARS_MAX).enumerate();
    shown
        .map(|(index, c)| {
            if covers(index + 1) {
                '*'
            } else if c.is_control() && c != '\t' {
                '\u{fffd}'
            } else {
                c
            }
        })
        .collect()
}

/// More mistakes than anyone fixes in one go.
const ERRORS_MAX: usize = 200;
const LINE_CHARS_MAX: usize = 240;
const UNDERLINE_MAX: usize = 80;
const LISTED_WORDS_MAX: usize = 24;
/// A longer word is not a misspelt key, and the comparison is quadratic.
const WORD_BYTES_MAX: usize = 64;
