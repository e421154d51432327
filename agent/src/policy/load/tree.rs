//! YAML as a tree that knows where everything was written: strict checks need the position of keys and values alike.

use std::collections::HashMap;

use granit_parser::{Event, Options, Parser, ScalarStyle};

use super::source::Reporter;

/// A place in a file: both from 1, columns in characters.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) struct Mark {
    pub(crate) line: usize,
    pub(crate) column: usize,
}

/// From `start` up to `end`, exclusive.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Span {
    pub(crate) start: Mark,
    pub(crate) end: Mark,
}

#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) span: Span,
    /// Bytes of the scalar as written, to find positions inside it.
    pub(super) bytes: Option<(usize, usize)>,
    pub(super) value: Value,
}

#[derive(Clone, Debug)]
pub(super) enum Value {
    Map(Vec<(Node, Node)>),
    /// `plain`: written without quotes, so that `null`, `true` and numbers have their YAML meaning.
    Scalar {
        text: String,
        plain: bool,
    },
    List(Vec<Node>),
}

/// Reads every document of a file. What cannot be parsed is reported; the documents before it are returned.
pub(super) fn parse(reporter: &Reporter<'_>) -> Vec<Node> {
    let mut options = Options::default();
    options.flow_nesting_limit = NESTING_MAX;
    options.block_nesting_limit = NESTING_MAX;
    let mut builder = Builder { reporter, open: Vec::new(), anchors: HashMap::new(), documents: Vec::new(), nodes: 0 };
    for event in Parser::new_from_str_with_options(&reporter.source().text, options) {
        match event {
            Ok((event, span)) => {
                if builder.take(event, span).is_none() {
                    break;
                }
            }
            Err(error) => {
                reporter.syntax(mark(*error.marker()), format!("not valid YAML: {}", error.info()));
                break;
            }
        }
    }
    builder.documents
}

/// A collection that has begun and not ended.
struct Open {
    node: Node,
    anchor: usize,
    key: Option<Node>,
    nodes_before: usize,
}

struct Builder<'r, 's> {
    reporter: &'r Reporter<'s>,
    open: Vec<Open>,
    /// Finished nodes by anchor, with their number of nodes and their height.
    anchors: HashMap<usize, (Node, usize)>,
    documents: Vec<Node>,
    nodes: usize,
}

impl Builder<'_, '_> {
    /// `None`: over a limit, which was reported.
    fn take(&mut self, event: Event<'_>, span: granit_parser::Span) -> Option<()> {
        let at = Span { start: mark(span.start), end: mark(span.end) };
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                self.refuse_tag(at, tag.is_some());
                let bytes = span.byte_range().map(|range| (range.start, range.end));
                let value = Value::Scalar { text: text.into_owned(), plain: matches!(style, ScalarStyle::Plain) };
                self.count(at, 1)?;
                self.finished(Node { span: at, bytes, value }, anchor, 1)
            }
            Event::SequenceStart(_, anchor, tag) => self.begin(at, Value::List(Vec::new()), anchor, tag.is_some()),
            Event::MappingStart(_, anchor, tag) => self.begin(at, Value::Map(Vec::new()), anchor, tag.is_some()),
            Event::SequenceEnd | Event::MappingEnd => {
                let mut open = self.open.pop()?;
                open.node.span.end = at.end;
                let count = self.nodes - open.nodes_before;
                self.finished(open.node, open.anchor, count)
            }
            Event::Alias(id) => {
                let Some((node, count)) = self.anchors.get(&id) else {
                    self.reporter.error(at, "an alias cannot stand inside what it names");
                    return None;
                };
                let (node, count) = (Node { span: at, ..node.clone() }, *count);
                if self.open.len() + height(&node) > NESTING_MAX {
                    self.reporter.error(at, format!("nested deeper than {NESTING_MAX} levels"));
                    return None;
                }
                self.count(at, count)?;
                self.finished(node, 0, count)
            }
            Event::DocumentStart(..) => {
                self.anchors.clear();
                if self.documents.len() >= DOCUMENTS_MAX {
                    self.reporter.error(at, format!("more than {DOCUMENTS_MAX} documents in one file"));
                    return None;
                }
                Some(())
            }
            _ => Some(()),
        }
    }

    fn begin(&mut self, at: Span, value: Value, anchor: usize, tagged: bool) -> Option<()> {
        self.refuse_tag(at, tagged);
        if self.open.len() >= NESTING_MAX {
            self.reporter.error(at, format!("nested deeper than {NESTING_MAX} levels"));
            return None;
        }
        let nodes_before = self.nodes;
        self.count(at, 1)?;
        self.open.push(Open { node: Node { span: at, bytes: None, value }, anchor, key: None, nodes_before });
        Some(())
    }

    fn finished(&mut self, node: Node, anchor: usize, count: usize) -> Option<()> {
        if anchor != 0 {
            self.count(node.span, count)?;
            self.anchors.insert(anchor, (node.clone(), count));
        }
        let Some(open) = self.open.last_mut() else {
            self.documents.push(node);
            return Some(());
        };
        match &mut open.node.value {
            Value::List(items) => items.push(node),
            Value::Map(entries) => match open.key.take() {
                Some(key) => entries.push((key, node)),
                None => open.key = Some(node),
            },
            Value::Scalar { .. } => {}
        }
        Some(())
    }

    /// Aliases count as what they expand to: ten lines can otherwise name a billion nodes.
    fn count(&mut self, at: Span, count: usize) -> Option<()> {
        self.nodes += count;
        if self.nodes > NODES_MAX {
            self.reporter.error(at, format!("more than {NODES_MAX} values in one file, aliases expanded"));
            return None;
        }
        Some(())
    }

    fn refuse_tag(&self, at: Span, tagged: bool) {
        if tagged {
            self.reporter.error(at, "YAML tags (`!...`) have no meaning in a policy");
        }
    }
}

fn mark(marker: granit_parser::Marker) -> Mark {
    Mark { line: marker.line(), column: marker.col() + 1 }
}

fn height(node: &Node) -> usize {
    match &node.value {
        Value::Scalar { .. } => 0,
        Value::List(items) => 1 + items.iter().map(height).max().unwrap_or(0),
        Value::Map(entries) => 1 + entries.iter().map(|(key, value)| height(key).max(height(value))).max().unwrap_or(0),
    }
}

/// The language itself needs eight.
const NESTING_MAX: usize = 32;
pub(super) const DOCUMENTS_MAX: usize = 256;
pub(super) const NODES_MAX: usize = 100_000;
