//! How large and how deep a text is, before the recursive parser sees it.
//!
//! libpg_query's writer, the protobuf decoder and the tree's destructor use stack in proportion to the tree's depth, and memory in
//! proportion to its nodes. The lexer does neither, so its tokens bound both: text that is deep is read on a thread with a stack to
//! match, text that is too deep or too large is not read at all.

use std::{
    panic::resume_unwind,
    sync::{Mutex, PoisonError},
    thread,
};

use pg_query::protobuf::Token;
use tokio::{
    runtime::{Handle, RuntimeFlavor},
    task::block_in_place,
};

/// Longer statements are unreadable. Bulk data of this size belongs into COPY.
pub(super) const TEXT_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Up to this length the text itself bounds the tree: every level costs at least one byte. Parsed on the spot, not measured.
const INLINE_BYTES_MAX: usize = 400;
/// Deeper trees leave the caller's stack (2 MiB on a runtime's worker).
const INLINE_NESTING_MAX: u32 = 150;
/// Deeper trees are not read. Chains of operators nest as well: `1+1+1` has depth 2.
const NESTING_MAX: u32 = 10_000;
/// More tokens are not read: a node of the decoded tree takes some 300 bytes, and a million of them take seconds.
const TOKENS_MAX: usize = 100_000;
/// The same for INSERT, whose rows of values are many in honest use.
const INSERT_TOKENS_MAX: usize = 400_000;
/// The lexer takes a run of operator characters apart in quadratic time: the squares of all runs' lengths together.
const OPERATOR_WORK_MAX: u64 = 10_000_000;
/// Larger texts are read one at a time, to bound memory.
const CROWD_TOKENS_MAX: usize = 50_000;
/// For `NESTING_MAX` levels of an unoptimised build. Only touched pages are ever backed by memory.
const DEEP_STACK_BYTES: usize = 256 * 1024 * 1024;

static LARGE: Mutex<()> = Mutex::new(());

/// Why a text is not parsed.
#[derive(Debug, Eq, PartialEq)]
pub(super) enum Unfit {
    /// Nothing but whitespace, comments and semicolons.
    Empty,
    Unreadable(String),
}

/// Runs `parse` where the tree of `sql` fits, or says why it must not run.
pub(super) fn within_limits<T: Send>(sql: &str, parse: impl FnOnce() -> T + Send) -> Result<T, Unfit> {
    if sql.len() <= INLINE_BYTES_MAX {
        return Ok(parse());
    }
    if sql.len() > TEXT_BYTES_MAX {
        return Err(Unfit::Unreadable(format!("the text is longer than {TEXT_BYTES_MAX} bytes")));
    }
    if operator_work(sql) > OPERATOR_WORK_MAX {
        return Err(Unfit::Unreadable("the text holds too long runs of operators".to_owned()));
    }
    // Long work of few, one at a time: not on a worker that others wait for.
    if sql.len() > CROWD_TOKENS_MAX { off_the_workers(|| measured(sql, parse)) } else { measured(sql, parse) }
}

/// Lets the runtime give the worker's other tasks to someone else meanwhile.
fn off_the_workers<T>(work: impl FnOnce() -> T) -> T {
    let is_worker = Handle::try_current().is_ok_and(|runtime| runtime.runtime_flavor() == RuntimeFlavor::MultiThread);
    if is_worker { block_in_place(work) } else { work() }
}

fn measured<T: Send>(sql: &str, parse: impl FnOnce() -> T + Send) -> Result<T, Unfit> {
    // One token can be a whole megabyte, and a megabyte can be a million tokens: only the lexer knows.
    let crowd = (sql.len() > CROWD_TOKENS_MAX).then(|| LARGE.lock().unwrap_or_else(PoisonError::into_inner));
    let extent = Extent::of(sql).ok_or_else(|| Unfit::Unreadable("the text holds no valid tokens".to_owned()))?;
    if extent.tokens == 0 {
        return Err(Unfit::Empty);
    }
    let tokens_max = if extent.is_insert { INSERT_TOKENS_MAX } else { TOKENS_MAX };
    if extent.tokens > tokens_max {
        return Err(Unfit::Unreadable(format!("the text holds more than {tokens_max} tokens")));
    }
    if extent.nesting > NESTING_MAX {
        return Err(Unfit::Unreadable(format!("the text nests deeper than {NESTING_MAX} levels")));
    }
    let result = match extent.nesting <= INLINE_NESTING_MAX {
        true => Ok(parse()),
        false => on_deep_stack(parse),
    };
    drop(crowd);
    result
}

fn on_deep_stack<T: Send>(parse: impl FnOnce() -> T + Send) -> Result<T, Unfit> {
    thread::scope(|scope| {
        let thread = thread::Builder::new().name("deep-sql".to_owned()).stack_size(DEEP_STACK_BYTES).spawn_scoped(scope, parse);
        match thread.map(thread::ScopedJoinHandle::join) {
            Ok(Ok(result)) => Ok(result),
            Ok(Err(panic)) => resume_unwind(panic),
            Err(_) => Err(Unfit::Unreadable("no thread could be started for a deeply nested text".to_owned())),
        }
    })
}

fn operator_work(sql: &str) -> u64 {
    let (mut work, mut run) = (0_u64, 0_u64);
    for byte in sql.bytes() {
        run = if b"~!@#^&|`?+-*/%<>=".contains(&byte) { run + 1 } else { 0 };
        // 1 + 3 + 5 and so on are the squares.
        work += (2 * run).saturating_sub(1);
    }
    work
}

/// True if the text holds no token but comments and semicolons.
pub(super) fn is_empty(sql: &str) -> bool {
    Extent::of(sql).is_some_and(|extent| extent.tokens == 0)
}

/// Upper bounds of a text's tree.
#[derive(Debug, Default)]
struct Extent {
    /// Without comments and semicolons.
    tokens: usize,
    nesting: u32,
    /// Begins with INSERT, and holds no query.
    is_insert: bool,
}

/// The tokens that may nest, of one open parenthesis.
#[derive(Clone, Copy, Default)]
struct Level {
    /// Since the last comma: what follows one starts a sibling.
    chain: u32,
    /// Set operations nest to the left across the commas of their select lists.
    set_operations: u32,
}

impl Extent {
    /// `None`: the lexer rejects the text, so the parser would too.
    fn of(sql: &str) -> Option<Self> {
        let tokens = pg_query::scan(sql).ok()?.tokens;
        let mut extent = Self::default();
        let mut outer: Vec<Level> = Vec::new();
        let mut level = Level::default();
        let mut depth: u32 = 0;
        for token in tokens {
            match token.token() {
                Token::Insert if extent.tokens == 0 => extent.is_insert = true,
                Token::Select | Token::With | Token::Union => extent.is_insert = false,
                _ => {}
            }
            match token.token() {
                Token::SqlComment | Token::CComment => continue,
                Token::Ascii59 => {
                    depth -= level.chain + level.set_operations;
                    level = Level::default();
                    continue;
                }
                Token::Ascii40 | Token::Ascii91 => {
                    outer.push(level);
                    level = Level { chain: 1, set_operations: 0 };
                    depth += 1;
                }
                Token::Ascii41 | Token::Ascii93 => {
                    depth -= level.chain + level.set_operations;
                    level = outer.pop().unwrap_or_default();
                }
                Token::Ascii44 => {
                    depth -= level.chain;
                    level.chain = 0;
                }
                Token::Union | Token::Intersect | Token::Except => {
                    depth += 1;
                    level.set_operations += 1;
                }
                _ => {
                    depth += 1;
                    level.chain += 1;
                }
            }
            extent.tokens += 1;
            extent.nesting = extent.nesting.max(depth);
        }
        Some(extent)
    }
}
