//! Evaluates compiled conditions over a request, borrowing from it.

use std::{borrow::Cow, cmp::Ordering};

use bytes::Bytes;

use super::{
    Facts, Fault,
    compile::{Comparison, Node},
    fields::{Field, Member, OBJECT_KINDS},
};
use crate::flow::{Effects, Object, ObjectKind, Request};

#[derive(Clone, Debug)]
enum Value<'a> {
    Bool(bool),
    Effects(Effects),
    Headers(&'a [(String, Bytes)]),
    Int(i64),
    List(&'a [Node]),
    Object(&'a Object),
    Objects(&'a [Object]),
    Text(Cow<'a, str>),
}

pub(super) fn holds(root: &Node, request: &Request, facts: &Facts<'_>) -> Result<bool, Fault> {
    Evaluation { request, facts, variables: Vec::new(), steps: 0 }.truth(root)
}

struct Evaluation<'a> {
    request: &'a Request,
    facts: &'a Facts<'a>,
    variables: Vec<Value<'a>>,
    steps: usize,
}

impl<'a> Evaluation<'a> {
    /// Types were settled by the compiler: a value of another type than expected is a fault, never a guess.
    fn value(&mut self, node: &'a Node) -> Result<Value<'a>, Fault> {
        self.steps += 1;
        if self.steps > STEPS_MAX {
            return Err(Fault);
        }
        Ok(match node {
            Node::All(list, body) => Value::Bool(self.every(list, body)?),
            Node::Exists(list, body) => Value::Bool(self.some(list, body)?),
            Node::And(a, b) => Value::Bool(self.either(a, b, false)?),
            Node::Or(a, b) => Value::Bool(self.either(a, b, true)?),
            Node::Not(a) => Value::Bool(!self.truth(a)?),
            Node::Bool(value) => Value::Bool(*value),
            Node::Int(value) => Value::Int(*value),
            Node::Text(text) => Value::Text(Cow::Borrowed(text)),
            Node::List(items) => Value::List(items),
            Node::Compare(comparison, a, b) => Value::Bool(self.compare(*comparison, a, b)?),
            Node::Conditional(parts) => {
                let [condition, yes, no] = &**parts;
                return if self.truth(condition)? { self.value(yes) } else { self.value(no) };
            }
            Node::Contains(of, part) => Value::Bool(self.text(of)?.contains(&*self.text(part)?)),
            Node::StartsWith(of, part) => Value::Bool(self.text(of)?.starts_with(&*self.text(part)?)),
            Node::EndsWith(of, part) => Value::Bool(self.text(of)?.ends_with(&*self.text(part)?)),
            Node::Matches(of, regex) => Value::Bool(regex.is_match(&self.text(of)?)),
            Node::Element(index) => self.variables.get(*index).cloned().ok_or(Fault)?,
            Node::Field(field) => self.field(*field)?,
            Node::Header(map, name) => {
                let Value::Headers(headers) = self.value(map)? else { return Err(Fault) };
                Value::Text(header(headers, &self.text(name)?).ok_or(Fault)?)
            }
            Node::In(element, list) => Value::Bool(self.contained(element, list)?),
            Node::Member(object, member) => {
                let Value::Object(object) = self.value(object)? else { return Err(Fault) };
                match member {
                    Member::Kind => Value::Text(Cow::Borrowed(kind_word(object.kind))),
                    Member::Name => Value::Text(Cow::Borrowed(&object.name)),
                    Member::Schema => Value::Text(Cow::Borrowed(object.schema.as_deref().unwrap_or(""))),
                    Member::Write => Value::Bool(object.write),
                }
            }
            Node::Size(of) => Value::Int(size(&self.value(of)?)?),
        })
    }

    fn truth(&mut self, node: &'a Node) -> Result<bool, Fault> {
        match self.value(node)? {
            Value::Bool(value) => Ok(value),
            _ => Err(Fault),
        }
    }

    fn text(&mut self, node: &'a Node) -> Result<Cow<'a, str>, Fault> {
        match self.value(node)? {
            Value::Text(text) => Ok(text),
            _ => Err(Fault),
        }
    }

    /// CEL's `&&` (`decisive` false) and `||` (`decisive` true): a decisive side settles it, even if the other one fails.
    fn either(&mut self, a: &'a Node, b: &'a Node, decisive: bool) -> Result<bool, Fault> {
        let left = self.truth(a);
        if left == Ok(decisive) {
            return left;
        }
        let right = self.truth(b);
        if right == Ok(decisive) { right } else { left.and(right) }
    }

    fn some(&mut self, list: &'a Node, body: &'a Node) -> Result<bool, Fault> {
        self.quantify(list, body, true)
    }

    fn every(&mut self, list: &'a Node, body: &'a Node) -> Result<bool, Fault> {
        self.quantify(list, body, false)
    }

    fn quantify(&mut self, list: &'a Node, body: &'a Node, decisive: bool) -> Result<bool, Fault> {
        let elements: Vec<Value<'a>> = match self.value(list)? {
            Value::Effects(effects) => effects.iter().map(|effect| Value::Text(Cow::Borrowed(effect.word()))).collect(),
            Value::Objects(objects) if objects.len() <= LOOP_ELEMENTS_MAX => objects.iter().map(Value::Object).collect(),
            Value::List(items) => items.iter().map(|item| self.value(item)).collect::<Result<_, _>>()?,
            _ => return Err(Fault),
        };
        let mut outcome = Ok(!decisive);
        for element in elements {
            self.variables.push(element);
            let result = self.truth(body);
            self.variables.pop();
            match result {
                Ok(value) if value == decisive => return Ok(decisive),
                Ok(_) => {}
                Err(fault) => outcome = Err(fault),
            }
        }
        outcome
    }

    fn compare(&mut self, comparison: Comparison, a: &'a Node, b: &'a Node) -> Result<bool, Fault> {
        let order = match (self.value(a)?, self.value(b)?) {
            (Value::Int(a), Value::Int(b)) => a.cmp(&b),
            (Value::Text(a), Value::Text(b)) => a.cmp(&b),
            (Value::Bool(a), Value::Bool(b)) => a.cmp(&b),
            _ => return Err(Fault),
        };
        Ok(match comparison {
            Comparison::Equal => order == Ordering::Equal,
            Comparison::Greater => order == Ordering::Greater,
            Comparison::GreaterOrEqual => order != Ordering::Less,
            Comparison::Less => order == Ordering::Less,
            Comparison::LessOrEqual => order != Ordering::Greater,
            Comparison::NotEqual => order != Ordering::Equal,
        })
    }

    fn contained(&mut self, element: &'a Node, list: &'a Node) -> Result<bool, Fault> {
        match (self.value(element)?, self.value(list)?) {
            (Value::Text(word), Value::Effects(effects)) => Ok(effects.iter().any(|effect| effect.word() == word)),
            (Value::Text(name), Value::Headers(headers)) => Ok(headers.iter().any(|(sent, _)| sent.eq_ignore_ascii_case(&name))),
            (Value::Text(text), Value::List(items)) => {
                items.iter().try_fold(false, |found, item| Ok(found || self.text(item)? == text))
            }
            (Value::Int(number), Value::List(items)) => items.iter().try_fold(false, |found, item| match self.value(item)? {
                Value::Int(item) => Ok(found || item == number),
                _ => Err(Fault),
            }),
            _ => Err(Fault),
        }
    }

    fn field(&self, field: Field) -> Result<Value<'a>, Fault> {
        let (facts, workload) = (self.facts, self.facts.workload);
        let optional = |text: &'a Option<String>| Value::Text(Cow::Borrowed(text.as_deref().unwrap_or("")));
        Ok(match (field, self.request) {
            (Field::StatementEffects, Request::Statement(it)) => Value::Effects(it.effects),
            (Field::StatementHasWhere, Request::Statement(it)) => Value::Bool(it.has_where),
            (Field::StatementWhereTautology, Request::Statement(it)) => Value::Bool(it.where_tautology),
            (Field::StatementReadable, Request::Statement(it)) => Value::Bool(it.readable),
            (Field::StatementTextLen, Request::Statement(it)) => Value::Int(count(it.text.len())),
            (Field::StatementObjects, Request::Statement(it)) => Value::Objects(&it.objects),
            (Field::StatementCount, Request::Statement(it)) => Value::Int(i64::from(it.count)),
            (Field::HttpMethod, Request::Http(it)) => Value::Text(Cow::Borrowed(&it.method)),
            (Field::HttpPath, Request::Http(it)) => Value::Text(Cow::Borrowed(&it.path_normal)),
            (Field::HttpHost, Request::Http(it)) => Value::Text(Cow::Borrowed(&it.host)),
            (Field::HttpQuery, Request::Http(it)) => optional(&it.query),
            (Field::HttpHeaders, Request::Http(it)) => Value::Headers(&it.headers),
            (Field::LoginUser, Request::Login(it)) => Value::Text(Cow::Borrowed(&it.user)),
            (Field::LoginDatabase, Request::Login(it)) => Value::Text(Cow::Borrowed(it.database.as_deref().unwrap_or(&it.user))),
            (Field::LoginApplication, Request::Login(it)) => optional(&it.application),
            (Field::LoginReplication, Request::Login(it)) => Value::Bool(it.replication),
            (Field::WorkloadName, _) => optional(&workload.name),
            (Field::WorkloadExe, _) => Value::Text(workload.exe.as_ref().map_or(Cow::Borrowed(""), |exe| exe.to_string_lossy())),
            (Field::WorkloadUid, _) => Value::Int(i64::from(workload.uid)),
            (Field::WorkloadGid, _) => Value::Int(i64::from(workload.gid)),
            (Field::WorkloadUnit, _) => optional(&workload.unit),
            (Field::WorkloadCgroup, _) => Value::Text(Cow::Borrowed(&workload.cgroup)),
            (Field::WorkloadPid, _) => Value::Int(i64::from(workload.pid)),
            (Field::SessionProtocol, _) => Value::Text(Cow::Owned(facts.protocol.to_string())),
            (Field::SessionUpstream, _) => Value::Text(Cow::Borrowed(facts.upstream)),
            (Field::SessionAddress, _) => Value::Text(Cow::Owned(facts.address.to_string())),
            (Field::SessionPort, _) => Value::Int(i64::from(facts.port)),
            _ => return Err(Fault),
        })
    }
}

/// A header's value; several of the same name are joined as RFC 9110, 5.2 says.
fn header<'a>(headers: &'a [(String, Bytes)], name: &str) -> Option<Cow<'a, str>> {
    let mut values =
        headers.iter().filter(|(sent, _)| sent.eq_ignore_ascii_case(name)).map(|(_, value)| String::from_utf8_lossy(value));
    let first = values.next()?;
    Some(values.fold(first, |joined, next| Cow::Owned(format!("{joined}, {next}"))))
}

fn size(value: &Value<'_>) -> Result<i64, Fault> {
    match value {
        Value::Effects(effects) => Ok(count(effects.iter().count())),
        Value::Headers(headers) => Ok(count(headers.len())),
        Value::List(items) => Ok(count(items.len())),
        Value::Objects(objects) => Ok(count(objects.len())),
        Value::Text(text) => Ok(count(text.chars().count())),
        Value::Bool(_) | Value::Int(_) | Value::Object(_) => Err(Fault),
    }
}

fn kind_word(kind: ObjectKind) -> &'static str {
    OBJECT_KINDS.iter().find(|(_, listed)| *listed == kind).map_or("other", |(word, _)| word)
}

fn count(length: usize) -> i64 {
    i64::try_from(length).unwrap_or(i64::MAX)
}

/// Terms evaluated for one request; more is a fault, which counts against the request.
const STEPS_MAX: usize = 20_000;
/// No statement that people write names more objects.
const LOOP_ELEMENTS_MAX: usize = 1024;
