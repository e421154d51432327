//! From CEL's syntax tree to a typed one: names and types are settled here, once.

use std::thread;

use cel::{
    Env, Program,
    common::ast::{CallExpr, ComprehensionExpr, Expr, IdedExpr, LiteralValue, SelectExpr, SourceInfo, operators},
};
use regex::{Regex, RegexBuilder};

use super::{
    About, Condition,
    fields::{Field, MEMBERS, Member, OBJECT_KINDS, ROOTS, Type, field, names_of},
};
use crate::flow::Effect;

/// Something wrong with an expression, at an offset in characters.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(in crate::policy) struct Finding {
    pub(in crate::policy) offset: usize,
    pub(in crate::policy) message: String,
    /// What was written and what is known, when a word is wrong.
    pub(in crate::policy) word: Option<(String, Vec<&'static str>)>,
}

#[derive(Clone, Debug)]
pub(super) enum Node {
    All(Box<Node>, Box<Node>),
    And(Box<Node>, Box<Node>),
    Bool(bool),
    Compare(Comparison, Box<Node>, Box<Node>),
    Conditional(Box<[Node; 3]>),
    Contains(Box<Node>, Box<Node>),
    /// The variable of the n-th enclosing `exists` or `all`, outermost first.
    Element(usize),
    EndsWith(Box<Node>, Box<Node>),
    Exists(Box<Node>, Box<Node>),
    Field(Field),
    Header(Box<Node>, Box<Node>),
    In(Box<Node>, Box<Node>),
    Int(i64),
    List(Vec<Node>),
    Matches(Box<Node>, Regex),
    Member(Box<Node>, Member),
    Not(Box<Node>),
    Or(Box<Node>, Box<Node>),
    Size(Box<Node>),
    StartsWith(Box<Node>, Box<Node>),
    Text(String),
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Comparison {
    Equal,
    Greater,
    GreaterOrEqual,
    Less,
    LessOrEqual,
    NotEqual,
}

/// Checks and compiles an expression. The parser is deeply recursive, so it gets a thread with a stack of its own.
///
/// # Errors
/// The first syntax error, or the first thing that does not type-check.
pub(in crate::policy) fn compile(text: &str) -> Result<Condition, Finding> {
    let whole = |message: String| Finding { offset: 0, message, word: None };
    if text.len() > TEXT_BYTES_MAX {
        return Err(whole(format!("a condition has at most {TEXT_BYTES_MAX} bytes")));
    }
    let source = text.to_owned();
    let compiled = thread::Builder::new().stack_size(STACK_BYTES).spawn(move || compile_here(&source));
    match compiled.map(thread::JoinHandle::join) {
        Ok(Ok(result)) => result,
        Ok(Err(_)) => Err(whole("not a readable CEL expression".to_owned())),
        Err(error) => Err(whole(format!("cannot start a thread to read it: {error}"))),
    }
}

fn compile_here(text: &str) -> Result<Condition, Finding> {
    let program: Program = Env::stdlib().compile(text).map_err(|errors| {
        let first = errors.errors.first();
        let (line, column) = first.map_or((1, 1), |error| error.pos);
        let message = first.map_or_else(String::new, |error| error.msg.clone());
        let brief = message.lines().next().unwrap_or("").chars().take(MESSAGE_CHARS_MAX).collect::<String>();
        Finding { offset: offset_of(text, line, column), message: format!("not a CEL expression: {brief}"), word: None }
    })?;
    let mut compiler = Compiler { source: program.source_info(), about: None, variables: Vec::new(), nodes: 0 };
    let root = program.expression();
    let (node, kind) = compiler.node(root)?;
    if kind != Type::Bool {
        return Err(compiler.wrong(root, format!("a condition must be true or false, this is {}", kind.words())));
    }
    Ok(Condition { root: node, about: compiler.about })
}

struct Compiler<'p> {
    source: &'p SourceInfo,
    about: Option<About>,
    variables: Vec<(String, Type)>,
    nodes: usize,
}

type Typed = (Node, Type);

impl Compiler<'_> {
    fn node(&mut self, expr: &IdedExpr) -> Result<Typed, Finding> {
        self.nodes += 1;
        if self.nodes > NODES_MAX {
            return Err(self.wrong(expr, format!("a condition has at most {NODES_MAX} terms")));
        }
        match &expr.expr {
            Expr::Call(call) => self.call(expr, call),
            Expr::Comprehension(comprehension) => self.comprehension(expr, comprehension),
            Expr::Ident(name) => self.identifier(expr, name),
            Expr::List(list) if list.optional_indices.is_empty() => self.list(expr, &list.elements),
            Expr::Literal(literal) => self.literal(expr, literal),
            Expr::Select(select) => self.select(expr, select),
            _ => Err(self.wrong(expr, "this form of CEL is not available in conditions")),
        }
    }

    fn literal(&self, expr: &IdedExpr, literal: &LiteralValue) -> Result<Typed, Finding> {
        match literal {
            LiteralValue::Boolean(value) => Ok((Node::Bool(*value.inner()), Type::Bool)),
            LiteralValue::Int(value) => Ok((Node::Int(*value.inner()), Type::Int)),
            LiteralValue::String(value) => Ok((Node::Text(value.inner().to_owned()), Type::Text)),
            _ => Err(self.wrong(expr, "literals are text, whole numbers, true and false")),
        }
    }

    fn identifier(&self, expr: &IdedExpr, name: &str) -> Result<Typed, Finding> {
        if let Some((index, (_, kind))) = self.variables.iter().enumerate().rev().find(|(_, (variable, _))| variable == name) {
            return Ok((Node::Element(index), *kind));
        }
        if ROOTS.contains(&name) {
            return Err(self.wrong(expr, format!("`{name}` has fields: name one of them ({})", names_of(name).join(", "))));
        }
        Err(self.unknown(expr, format!("unknown name `{name}`"), name, ROOTS))
    }

    fn select(&mut self, expr: &IdedExpr, select: &SelectExpr) -> Result<Typed, Finding> {
        if select.test {
            return Err(self.wrong(expr, "has() is not available: every field exists; use `\"x\" in http.headers`"));
        }
        if let Expr::Ident(root) = &select.operand.expr
            && ROOTS.contains(&root.as_str())
            && !self.variables.iter().any(|(variable, _)| variable == root)
        {
            let Some((field, kind, about)) = field(root, &select.field) else {
                return Err(self.unknown(
                    expr,
                    format!("`{root}` has no field `{}`", select.field),
                    &select.field,
                    names_of(root),
                ));
            };
            self.ask(expr, about)?;
            return Ok((Node::Field(field), kind));
        }
        let (operand, kind) = self.node(&select.operand)?;
        if kind != Type::Object {
            return Err(self.wrong(expr, format!("{} has no field `{}`", kind.words(), select.field)));
        }
        let (member, kind) = match select.field.as_str() {
            "kind" => (Member::Kind, Type::Kind),
            "name" => (Member::Name, Type::Text),
            "schema" => (Member::Schema, Type::Text),
            "write" => (Member::Write, Type::Bool),
            other => return Err(self.unknown(expr, format!("an object has no field `{other}`"), other, MEMBERS)),
        };
        Ok((Node::Member(Box::new(operand), member), kind))
    }

    /// A condition about two kinds of request would never hold.
    fn ask(&mut self, expr: &IdedExpr, about: Option<About>) -> Result<(), Finding> {
        match (self.about, about) {
            (Some(one), Some(other)) if one != other => {
                Err(self.wrong(expr, format!("asks about {one} and about {other}: no request is both")))
            }
            (None, Some(_)) => {
                self.about = about;
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn list(&mut self, expr: &IdedExpr, elements: &[IdedExpr]) -> Result<Typed, Finding> {
        let mut nodes = Vec::with_capacity(elements.len().min(NODES_MAX));
        let mut kind = None;
        for element in elements {
            let (node, next) = self.node(element)?;
            if !matches!(next, Type::Int | Type::Text) || kind.is_some_and(|kind| kind != next) {
                return Err(self.wrong(element, "a list holds either text or numbers"));
            }
            kind = Some(next);
            nodes.push(node);
        }
        match kind {
            Some(Type::Int) => Ok((Node::List(nodes), Type::List(&Type::Int))),
            Some(_) => Ok((Node::List(nodes), Type::List(&Type::Text))),
            None => Err(self.wrong(expr, "this list is empty")),
        }
    }

    fn call(&mut self, expr: &IdedExpr, call: &CallExpr) -> Result<Typed, Finding> {
        let boxed = |(node, _): Typed| Box::new(node);
        match (call.func_name.as_str(), call.target.as_deref(), call.args.as_slice()) {
            (operators::LOGICAL_AND, None, [a, b]) => Ok((Node::And(self.truth(a)?, self.truth(b)?), Type::Bool)),
            (operators::LOGICAL_OR, None, [a, b]) => Ok((Node::Or(self.truth(a)?, self.truth(b)?), Type::Bool)),
            (operators::LOGICAL_NOT, None, [a]) => Ok((Node::Not(self.truth(a)?), Type::Bool)),
            (operators::NEGATE, None, [IdedExpr { expr: Expr::Literal(LiteralValue::Int(value)), .. }]) => {
                Ok((Node::Int(value.inner().saturating_neg()), Type::Int))
            }
            (operators::CONDITIONAL, None, [condition, yes, no]) => {
                let condition = self.truth(condition)?;
                let ((yes, kind), (no, other)) = (self.node(yes)?, self.node(no)?);
                if kind.plain() != other.plain() {
                    return Err(
                        self.wrong(expr, format!("`?:` gives {} or {}: both must be the same", kind.words(), other.words()))
                    );
                }
                Ok((Node::Conditional(Box::new([*condition, yes, no])), kind.plain()))
            }
            (operators::EQUALS, None, [a, b]) => self.compare(expr, Comparison::Equal, a, b),
            (operators::NOT_EQUALS, None, [a, b]) => self.compare(expr, Comparison::NotEqual, a, b),
            (operators::GREATER, None, [a, b]) => self.compare(expr, Comparison::Greater, a, b),
            (operators::GREATER_EQUALS, None, [a, b]) => self.compare(expr, Comparison::GreaterOrEqual, a, b),
            (operators::LESS, None, [a, b]) => self.compare(expr, Comparison::Less, a, b),
            (operators::LESS_EQUALS, None, [a, b]) => self.compare(expr, Comparison::LessOrEqual, a, b),
            (operators::IN, None, [element, container]) => self.contained(expr, element, container),
            (operators::INDEX, None, [map, key]) => {
                let (map, kind) = self.node(map)?;
                if kind != Type::Headers {
                    return Err(self.wrong(expr, "only http.headers can be indexed; for lists use exists() or all()"));
                }
                Ok((Node::Header(Box::new(map), self.text(key)?), Type::Text))
            }
            ("size", Some(of), []) | ("size", None, [of]) => {
                let (node, kind) = self.node(of)?;
                if !matches!(kind.plain(), Type::Effects | Type::Headers | Type::Objects | Type::Text | Type::List(_)) {
                    return Err(self.wrong(of, format!("{} has no size", kind.words())));
                }
                Ok((Node::Size(Box::new(node)), Type::Int))
            }
            ("startsWith", Some(of), [part]) => Ok((Node::StartsWith(self.text(of)?, self.text(part)?), Type::Bool)),
            ("endsWith", Some(of), [part]) => Ok((Node::EndsWith(self.text(of)?, self.text(part)?), Type::Bool)),
            ("contains", Some(of), [part]) => Ok((Node::Contains(self.text(of)?, self.text(part)?), Type::Bool)),
            ("matches", Some(of), [pattern]) | ("matches", None, [of, pattern]) => {
                let of = self.node(of).and_then(|typed| self.expect(expr, typed, Type::Text)).map(boxed)?;
                Ok((Node::Matches(of, self.regex(pattern)?), Type::Bool))
            }
            (name @ ("map" | "filter" | "exists_one" | "existsOne"), ..) => {
                Err(self.wrong(expr, format!("{name}() is not available in conditions")))
            }
            (
                operators::ADD
                | operators::SUBSTRACT
                | operators::MULTIPLY
                | operators::DIVIDE
                | operators::MODULO
                | operators::NEGATE,
                ..,
            ) => Err(self.wrong(expr, "arithmetic is not available in conditions")),
            (name, ..) if FUNCTIONS.contains(&name) => {
                Err(self.wrong(expr, format!("{name}() is called with the wrong arguments")))
            }
            (name, ..) => Err(self.unknown(expr, format!("unknown function `{}`", name.trim_matches('_')), name, FUNCTIONS)),
        }
    }

    fn compare(&mut self, expr: &IdedExpr, comparison: Comparison, a: &IdedExpr, b: &IdedExpr) -> Result<Typed, Finding> {
        let ((left, left_kind), (right, right_kind)) = (self.node(a)?, self.node(b)?);
        let comparable = match left_kind.plain() {
            Type::Int | Type::Text => true,
            Type::Bool => matches!(comparison, Comparison::Equal | Comparison::NotEqual),
            _ => false,
        };
        if left_kind.plain() != right_kind.plain() || !comparable {
            return Err(
                self.wrong(expr, format!("{} cannot be compared with {} like this", left_kind.words(), right_kind.words()))
            );
        }
        self.vocabulary(b, left_kind, &right)?;
        self.vocabulary(a, right_kind, &left)?;
        Ok((Node::Compare(comparison, Box::new(left), Box::new(right)), Type::Bool))
    }

    fn contained(&mut self, expr: &IdedExpr, element: &IdedExpr, container: &IdedExpr) -> Result<Typed, Finding> {
        let ((node, kind), (list, list_kind)) = (self.node(element)?, self.node(container)?);
        let held = match list_kind {
            Type::Effects => Type::Effect,
            Type::Headers => Type::Text,
            Type::List(held) => *held,
            other => return Err(self.wrong(expr, format!("`in` looks into lists and headers, not into {}", other.words()))),
        };
        if kind.plain() != held.plain() {
            return Err(self.wrong(expr, format!("{} is never in a list of {}", kind.words(), held.words())));
        }
        self.vocabulary(element, held, &node)?;
        if let Node::List(items) = &list {
            items.iter().try_for_each(|item| self.vocabulary(container, kind, item))?;
        }
        Ok((Node::In(Box::new(node), Box::new(list)), Type::Bool))
    }

    /// `exists` and `all`, as the parser's macros expand them.
    fn comprehension(&mut self, expr: &IdedExpr, loops: &ComprehensionExpr) -> Result<Typed, Finding> {
        let (list, kind) = self.node(&loops.iter_range)?;
        let element = match kind {
            Type::Effects => Type::Effect,
            Type::Objects => Type::Object,
            Type::List(held) => *held,
            other => return Err(self.wrong(expr, format!("exists() and all() go over lists, not over {}", other.words()))),
        };
        if self.variables.len() >= LOOPS_MAX {
            return Err(self.wrong(expr, format!("loops are nested at most {LOOPS_MAX} deep")));
        }
        let starts_with =
            |value: bool| matches!(&loops.accu_init.expr, Expr::Literal(LiteralValue::Boolean(it)) if *it.inner() == value);
        let (body, all) = match &loops.loop_step.expr {
            Expr::Call(CallExpr { func_name, args, .. }) => match args.as_slice() {
                [_, body] if func_name == operators::LOGICAL_OR && starts_with(false) => (body, false),
                [_, body] if func_name == operators::LOGICAL_AND && starts_with(true) => (body, true),
                _ => return Err(self.wrong(expr, "of the loops only exists() and all() are available")),
            },
            _ => return Err(self.wrong(expr, "of the loops only exists() and all() are available")),
        };
        self.variables.push((loops.iter_var.clone(), element));
        let body = self.truth(body);
        self.variables.pop();
        let node = if all { Node::All(Box::new(list), body?) } else { Node::Exists(Box::new(list), body?) };
        Ok((node, Type::Bool))
    }

    fn truth(&mut self, expr: &IdedExpr) -> Result<Box<Node>, Finding> {
        let typed = self.node(expr)?;
        self.expect(expr, typed, Type::Bool).map(|(node, _)| Box::new(node))
    }

    fn text(&mut self, expr: &IdedExpr) -> Result<Box<Node>, Finding> {
        let typed = self.node(expr)?;
        self.expect(expr, typed, Type::Text).map(|(node, _)| Box::new(node))
    }

    fn expect(&self, expr: &IdedExpr, typed: Typed, wanted: Type) -> Result<Typed, Finding> {
        if typed.1.plain() == wanted {
            return Ok(typed);
        }
        Err(self.wrong(expr, format!("this must be {}, but it is {}", wanted.words(), typed.1.words())))
    }

    fn regex(&self, pattern: &IdedExpr) -> Result<Regex, Finding> {
        let Expr::Literal(LiteralValue::String(text)) = &pattern.expr else {
            return Err(self.wrong(pattern, "the pattern of matches() must be written out"));
        };
        RegexBuilder::new(text.inner()).size_limit(REGEX_BYTES_MAX).build().map_err(|error| {
            let reason = error.to_string().lines().last().unwrap_or("").trim_start_matches("error: ").to_owned();
            self.wrong(pattern, format!("not a valid pattern: {reason}"))
        })
    }

    /// A literal that is compared with a word of a closed set must be one of its words.
    fn vocabulary(&self, expr: &IdedExpr, kind: Type, node: &Node) -> Result<(), Finding> {
        let Node::Text(text) = node else { return Ok(()) };
        let (what, words): (_, Vec<&'static str>) = match kind {
            Type::Effect => ("an effect", Effect::ALL.iter().map(|effect| effect.word()).collect()),
            Type::Kind => ("a kind of object", OBJECT_KINDS.iter().map(|(word, _)| *word).collect()),
            _ => return Ok(()),
        };
        if words.contains(&text.as_str()) {
            return Ok(());
        }
        Err(Finding { word: Some((text.clone(), words)), ..self.wrong(expr, format!("`{text}` is not {what}")) })
    }

    fn wrong(&self, expr: &IdedExpr, message: impl Into<String>) -> Finding {
        let offset = self.source.offset_for(expr.id).map_or(0, |(start, _)| start as usize);
        Finding { offset, message: message.into(), word: None }
    }

    fn unknown(&self, expr: &IdedExpr, message: String, word: &str, known: &[&'static str]) -> Finding {
        Finding { word: Some((word.to_owned(), known.to_vec())), ..self.wrong(expr, message) }
    }
}

/// Characters before a position that counts lines and columns from 1.
fn offset_of(text: &str, line: isize, column: isize) -> usize {
    let line = usize::try_from(line).unwrap_or(1).max(1);
    let column = usize::try_from(column).unwrap_or(1).max(1);
    let before: usize = text.split_inclusive('\n').take(line - 1).map(|line| line.chars().count()).sum();
    (before + column - 1).min(text.chars().count())
}

const FUNCTIONS: &[&str] = &["all", "contains", "endsWith", "exists", "matches", "size", "startsWith"];
const TEXT_BYTES_MAX: usize = 4096;
/// A downstream of the parser needs 32 MiB for its deepest expressions; the pages are touched only then.
const STACK_BYTES: usize = 32 * 1024 * 1024;
const NODES_MAX: usize = 1024;
const LOOPS_MAX: usize = 2;
const REGEX_BYTES_MAX: usize = 1024 * 1024;
const MESSAGE_CHARS_MAX: usize = 160;
