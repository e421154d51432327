//! Passwords in command lines: what stands where programs expect a secret is hidden, whether weir knows the value or not.
//!
//! A heuristic on the safe side: it may hide a word too much, and it cannot know every program's options.

use std::ops::Range;

use super::REPLACEMENT;

/// A command line without what looks like a password in it.
pub(super) fn hide(argv: &[String]) -> Vec<String> {
    let mut reader = Reader::default();
    argv.iter().map(|argument| reader.argument(argument)).collect()
}

/// What was read so far.
#[derive(Default)]
struct Reader {
    programs: Programs,
    next: Option<Next>,
}

/// Programs whose short options take secrets; they may come behind `sudo`, `env` or `sh -c`.
#[derive(Default)]
struct Programs {
    curl: bool,
    mysql: bool,
    sshpass: bool,
}

/// What the next word is.
#[derive(Clone, Copy)]
enum Next {
    /// `user:password`.
    Pair,
    Secret,
}

impl Reader {
    fn argument(&mut self, text: &str) -> String {
        let mut hidden = Vec::new();
        match self.next.take() {
            Some(Next::Secret) => hidden.push(0..text.len()),
            Some(Next::Pair) => hidden.extend(after_colon(text, 0)),
            None => self.words(text, &mut hidden),
        }
        pairs(text, &mut hidden);
        urls(text, &mut hidden);
        replaced(text, hidden)
    }

    /// Options, word by word: a shell's `-c` holds a whole command line in one argument.
    fn words(&mut self, text: &str, hidden: &mut Vec<Range<usize>>) {
        let mut read_to = 0;
        for (at, word) in words(text) {
            if at < read_to {
                continue;
            }
            match self.next.take() {
                Some(Next::Secret) => {
                    let value = value_at(text, at);
                    read_to = value.end;
                    hidden.push(value);
                }
                Some(Next::Pair) => hidden.extend(after_colon(word, at)),
                None => self.word(at, word, hidden),
            }
        }
    }

    fn word(&mut self, at: usize, word: &str, hidden: &mut Vec<Range<usize>>) {
        let Some(option) = word.strip_prefix('-') else { return self.programs.note(word) };
        let name = option.trim_start_matches('-');
        let is_long = option.starts_with('-');
        if !word.contains(['=', ':']) && is_secret(name) && !name.starts_with("no-") {
            self.next = Some(Next::Secret);
        } else if self.programs.curl && matches!(name, "user" | "proxy-user" | "u" | "U") {
            self.next = Some(Next::Pair);
        } else if self.programs.curl && (name.starts_with("user=") || name.starts_with("proxy-user=")) {
            hidden.extend(after_colon(word, at));
        } else if is_long {
        } else if self.programs.curl && name.starts_with(['u', 'U']) {
            hidden.extend(after_colon(word, at));
        } else if self.programs.curl && name.ends_with('u') {
            self.next = Some(Next::Pair); // -su: flags in one word
        } else if self.programs.sshpass && name == "p" {
            self.next = Some(Next::Secret);
        } else if (self.programs.mysql || self.programs.sshpass) && name.len() > 1 && name.starts_with('p') {
            hidden.push(at + "-p".len()..at + word.len());
        }
    }
}

impl Programs {
    fn note(&mut self, word: &str) {
        let name = word.rsplit('/').next().unwrap_or(word).trim_matches(QUOTES);
        self.curl |= name == "curl";
        self.mysql |= ["mysql", "mariadb", "mycli"].iter().any(|begin| name.starts_with(begin));
        self.sshpass |= name == "sshpass";
    }
}

/// `password=VALUE`, `PGPASSWORD=VALUE`, `"token": "VALUE"`, `Authorization: VALUE`.
fn pairs(text: &str, hidden: &mut Vec<Range<usize>>) {
    for (at, sign) in text.match_indices(['=', ':']) {
        let before = text.get(..at).unwrap_or_default().trim_end_matches([' ', '\t', '"', '\'', '\\']);
        let begin = before.rfind(|character: char| !is_name(character)).map_or(0, |end| end + 1);
        let name = before.get(begin..).unwrap_or_default();
        let rest = text.get(at + sign.len()..).unwrap_or_default();
        // A cast (`token::text`) and a URL (`token://`) name no value.
        if !is_secret(name)
            || (sign == ":" && (rest.starts_with([':', '/']) || text.get(..at).is_some_and(|it| it.ends_with(':'))))
        {
            continue;
        }
        let from = at + sign.len() + (rest.len() - rest.trim_start_matches([' ', '\t']).len());
        let whole_line = HEADERS.iter().any(|header| normal(name).ends_with(header));
        if whole_line {
            // `Bearer VALUE`, `Basic VALUE`: a scheme stands in front.
            let value = text.get(from..).unwrap_or_default();
            hidden.push(from..from + value.find(['"', '\n', '\r']).unwrap_or(value.len()));
        } else {
            hidden.push(value_at(text, from));
        }
    }
}

/// `scheme://user:VALUE@host`.
fn urls(text: &str, hidden: &mut Vec<Range<usize>>) {
    for (at, sign) in text.match_indices("://") {
        let from = at + sign.len();
        let rest = text.get(from..).unwrap_or_default();
        let word = rest.get(..rest.find(|end: char| end.is_whitespace() || QUOTES.contains(&end)).unwrap_or(rest.len()));
        let word = word.unwrap_or_default();
        let authority = word.get(..word.find(['/', '?', '#']).unwrap_or(word.len())).unwrap_or_default();
        let Some(colon) = authority.find(':') else { continue };
        let port = authority.get(colon + 1..).unwrap_or_default();
        // A password may hold a bare slash; what is a port behind a host does not.
        let is_port = port.bytes().all(|byte| byte.is_ascii_digit());
        let end = authority.rfind('@').or_else(|| if is_port { None } else { word.rfind('@') });
        if let Some(end) = end.filter(|end| *end > colon) {
            hidden.push(from + colon + 1..from + end);
        }
    }
}

/// What stands behind the first colon.
fn after_colon(word: &str, at: usize) -> Option<Range<usize>> {
    let end = word.trim_end_matches(QUOTES).len();
    word.find(':').filter(|colon| *colon < end).map(|colon| at + colon + 1..at + end)
}

/// A value: to the closing quote if it is quoted, else to the end of the word.
fn value_at(text: &str, at: usize) -> Range<usize> {
    let rest = text.get(at..).unwrap_or_default();
    let inner = rest.trim_start_matches('\\');
    if let Some(quote) = inner.chars().next().filter(|first| QUOTES.contains(first)) {
        let from = at + (rest.len() - inner.len()) + quote.len_utf8();
        let inner = text.get(from..).unwrap_or_default();
        return from..from + inner.find(quote).unwrap_or(inner.len());
    }
    let ends = |end: char| end.is_whitespace() || QUOTES.contains(&end) || matches!(end, '&' | ';');
    at..at + rest.find(ends).unwrap_or(rest.len())
}

fn words(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut at = 0;
    text.split(char::is_whitespace).filter_map(move |word| {
        let begin = at;
        // Every white space but a few is one byte; what it is does not matter here, only where the next word begins.
        at = begin + word.len() + text.get(begin + word.len()..).and_then(|rest| rest.chars().next()).map_or(0, char::len_utf8);
        (!word.is_empty()).then_some((begin, word))
    })
}

fn replaced(text: &str, mut hidden: Vec<Range<usize>>) -> String {
    hidden.retain(|range| !range.is_empty());
    if hidden.is_empty() {
        return text.to_owned();
    }
    hidden.sort_by_key(|range| range.start);
    let (mut out, mut done, mut open) = (String::with_capacity(text.len()), 0, false);
    for range in hidden {
        if range.start > done || !open {
            out += text.get(done..range.start).unwrap_or_default();
            out += &String::from_utf8_lossy(REPLACEMENT);
            open = true;
        }
        done = done.max(range.end);
    }
    out + text.get(done..).unwrap_or_default()
}

fn is_name(character: char) -> bool {
    character.is_ascii_alphanumeric() || matches!(character, '_' | '-')
}

fn is_secret(name: &str) -> bool {
    let name = normal(name);
    SECRETS.iter().chain(HEADERS).any(|word| name.ends_with(word))
}

fn normal(name: &str) -> String {
    name.to_ascii_lowercase().replace('-', "_")
}

/// How names of secrets end: `PGPASSWORD`, `x-auth-token`.
const SECRETS: &[&str] =
    &["password", "passwd", "passphrase", "pwd", "token", "secret", "api_key", "apikey", "secret_key", "access_key", "bearer"];
/// Everything behind these is the secret, also behind a space.
const HEADERS: &[&str] = &["authorization", "cookie"];
const QUOTES: [char; 2] = ['\'', '"'];

#[cfg(test)]
mod tests {
    use super::*;

    fn hidden(argv: &[&str]) -> Vec<String> {
        hide(&argv.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn hides_the_password_of_a_url() {
        assert_eq!(hidden(&["psql", "postgres://app:s3cr@t@db:5432/x"]), ["psql", "postgres://app:***@db:5432/x"]);
        assert_eq!(hidden(&["psql", "postgres://app:s3/cret@db/x"]), ["psql", "postgres://app:***@db/x"]);
        let plain = ["curl", "http://db:8080/a?mail=ann@x.io", "http://ann@x.io/b:c@d"];
        assert_eq!(hidden(&plain), plain);
    }

    #[test]
    fn hides_values_of_keys_that_name_secrets() {
        assert_eq!(hidden(&["psql", "host=db password=s3cret user=a"]), ["psql", "host=db password=*** user=a"]);
        assert_eq!(hidden(&["psql", "password = 's3 cret' user=a"]), ["psql", "password = '***' user=a"]);
        assert_eq!(hidden(&["env", "PGPASSWORD=s3cret", "MYSQL_PWD=x y"]), ["env", "PGPASSWORD=***", "MYSQL_PWD=*** y"]);
        assert_eq!(hidden(&["curl", "http://h/?api_key=s3cret&x=1"]), ["curl", "http://h/?api_key=***&x=1"]);
        assert_eq!(hidden(&["curl", "-d", r#"{"token": "s3 cret", "a": 1}"#]), ["curl", "-d", r#"{"token": "***", "a": 1}"#]);
    }

    #[test]
    fn hides_values_of_options_that_name_secrets() {
        assert_eq!(hidden(&["x", "--password", "s3 cret", "-v"]), ["x", "--password", "***", "-v"]);
        assert_eq!(hidden(&["x", "--api-key=s3cret"]), ["x", "--api-key=***"]);
        let script = "tool --token 's3 cret' && mysql -ps3cret app";
        assert_eq!(hidden(&["sh", "-c", script]), ["sh", "-c", "tool --token '***' && mysql -p*** app"]);
    }

    #[test]
    fn hides_short_options_of_programs_that_take_secrets_there() {
        assert_eq!(hidden(&["sudo", "/usr/bin/mysqldump", "-ps3cret", "-p"]), ["sudo", "/usr/bin/mysqldump", "-p***", "-p"]);
        assert_eq!(hidden(&["sshpass", "-p", "s3cret", "ssh", "h"]), ["sshpass", "-p", "***", "ssh", "h"]);
        assert_eq!(hidden(&["psql", "-p5432", "-U", "ann"]), ["psql", "-p5432", "-U", "ann"]);
        assert_eq!(hidden(&["curl", "-u", "ann:s3:cret", "h"]), ["curl", "-u", "ann:***", "h"]);
        assert_eq!(hidden(&["curl", "-uann:s3cret"]), ["curl", "-uann:***"]);
        assert_eq!(hidden(&["curl", "-su", "ann:s3cret", "--user=bob:x"]), ["curl", "-su", "ann:***", "--user=bob:***"]);
    }

    #[test]
    fn hides_authorization_headers_as_a_whole() {
        assert_eq!(hidden(&["curl", "-H", "Authorization: Bearer s3cret"]), ["curl", "-H", "Authorization: ***"]);
        assert_eq!(hidden(&["curl", "-HX-Api-Key:s3cret"]), ["curl", "-HX-Api-Key:***"]);
        let script = r#"curl -H "authorization: Basic s3cret" http://h/x"#;
        assert_eq!(hidden(&["sh", "-c", script]), ["sh", "-c", r#"curl -H "authorization: ***" http://h/x"#]);
    }

    #[test]
    fn keeps_what_holds_no_secret() {
        let argv = [
            "psql",
            "-c",
            "select token::text, count(*) from orders where id = 5 -- é\u{2003}ß",
            "--no-password",
            "app",
            "",
            "a=b",
        ];
        assert_eq!(hidden(&argv), argv);
    }
}
