//! What a person or a script reads: tables on a terminal, plain lines when piped, JSON when asked; errors with the word `weir:`.

use std::io::{self, IsTerminal, Write};

/// Where colour may be used: standard output is a terminal and `NO_COLOR` is not set (<https://no-color.org>).
#[must_use]
pub fn colour() -> bool {
    io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// Writes one line to standard error: `weir: <message>`. Nobody to tell is not an error.
pub fn complain(message: impl std::fmt::Display) {
    let _ = writeln!(io::stderr(), "weir: {message}");
}

/// Says what failed to people, and to a script that asked for JSON also on standard output: `{"error": "..."}`.
pub fn fail(message: impl std::fmt::Display, as_json: bool) {
    if as_json {
        print(&format!("{:#}\n", serde_json::json!({ "error": message.to_string() })));
    }
    complain(message);
}

/// Writes to standard output; a reader that went away (`| head`) ends the program quietly.
pub fn print(text: &str) {
    let mut out = io::stdout().lock();
    if out.write_all(text.as_bytes()).and_then(|()| out.flush()).is_err() {
        std::process::exit(0);
    }
}

/// A table: aligned columns with a header on a terminal; tab-separated without one when piped.
pub struct Table {
    header: Vec<&'static str>,
    rows: Vec<Vec<String>>,
}

impl Table {
    #[must_use]
    pub fn new(header: &[&'static str]) -> Self {
        Self { header: header.to_vec(), rows: Vec::new() }
    }

    pub fn row(&mut self, cells: Vec<String>) {
        self.rows.push(cells);
    }

    /// Renders for standard output as it is now. Control characters in cells are shown escaped: they may be hostile.
    #[must_use]
    pub fn render(&self) -> String {
        self.render_for(io::stdout().is_terminal())
    }

    fn render_for(&self, terminal: bool) -> String {
        let clean = |cell: &String| cell.chars().flat_map(escape_control).collect::<String>();
        let rows: Vec<Vec<String>> = self.rows.iter().map(|row| row.iter().map(clean).collect()).collect();
        if !terminal {
            return rows.iter().map(|row| row.join("\t") + "\n").collect();
        }
        let width = |column: usize| {
            let cells = rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count());
            cells.chain(self.header.get(column).map(|cell| cell.len())).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..self.header.len()).map(width).collect();
        let line = |cells: Vec<&str>| {
            let padded: Vec<String> = cells.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
            padded.join("  ").trim_end().to_owned() + "\n"
        };
        let mut text = line(self.header.clone());
        rows.iter().for_each(|row| text += &line(row.iter().map(String::as_str).collect()));
        text
    }
}

fn escape_control(character: char) -> Box<dyn Iterator<Item = char>> {
    if character.is_control() { Box::new(character.escape_default()) } else { Box::new(std::iter::once(character)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn aligns_on_a_terminal_and_uses_tabs_when_piped() {
        let mut table = Table::new(&["NAME", "N"]);
        table.row(vec!["long name".into(), "1".into()]);
        assert_eq!(table.render_for(true), "NAME       N\nlong name  1\n");
        assert_eq!(table.render_for(false), "long name\t1\n");
    }

    #[test]
    fn shows_terminal_escapes_instead_of_obeying_them() {
        let mut table = Table::new(&["A"]);
        table.row(vec!["\u{1b}]0;owned\u{7}".into()]);
        assert!(!table.render_for(true).contains('\u{1b}'));
    }
}
