//! The walk over the tree: collects effects, objects and mentions.
//!
//! Iterative, with a work list of its own: however deep the tree is, the walk needs no stack. Names of common table expressions
//! are scoped as the server scopes them, so that they are not taken for tables.

use std::{
    collections::{HashMap, HashSet, hash_map::Entry},
    ptr,
};

use pg_query::{
    NodeRef,
    protobuf::{Alias, ColumnRef, CommonTableExpr, FuncCall, Node, RangeVar, RawStmt, WithClause},
};

use super::{
    Verb,
    children::children,
    functions,
    nodes::{literal, node_of, strings},
    reads::{self, note, reads_of},
    redact::SecretLiteral,
    settings,
    statements::{self, judge},
    tautology::is_tautology,
};
use crate::{
    flow::{Effect, Effects, Object, ObjectKind},
    protocol::postgres::rows::{Mentions, Reads, Relabelled, Relation, Target},
};

/// What the walk found out about a message.
pub(super) struct Findings {
    pub(super) effects: Effects,
    pub(super) objects: Vec<Object>,
    pub(super) has_where: bool,
    pub(super) where_tautology: bool,
    pub(super) unreadable_reason: Option<&'static str>,
    pub(super) unsafe_setting: Option<&'static str>,
    pub(super) mentions: Mentions,
    pub(super) secrets: Vec<SecretLiteral>,
}

/// The walk over one message, statement by statement.
pub(super) struct Walk<'a> {
    findings: Findings,
    objects_seen: HashSet<Object>,
    relations_seen: HashSet<(Option<&'a str>, &'a str, Option<&'a str>)>,
    statements: usize,
    work: Vec<Work<'a>>,
    /// Names of common table expressions, innermost scope last.
    scopes: Vec<Vec<&'a str>>,
    /// Stars of the outermost select list: their columns keep their origin.
    outer_stars: Vec<&'a ColumnRef>,
    /// Subqueries, common table expressions or functions as tables: columns may go by other names than their own.
    renames: bool,
    /// What EXECUTE names is judged elsewhere.
    around_execute: bool,
    /// What the names in FROM lists mean; `None`: no relation, or several.
    ranges: HashMap<&'a str, Option<(Option<&'a str>, &'a str)>>,
    /// Qualifiers in bodies of functions, where names may mean something else.
    clashes: HashSet<String>,
    /// The body of a function that a statement makes.
    is_body: bool,
}

enum Work<'a> {
    Visit(NodeRef<'a>),
    OpenScope,
    Declare(&'a str),
    CloseScope,
}

impl<'a> Walk<'a> {
    pub(super) fn new(is_body: bool) -> Self {
        Self {
            findings: Findings {
                effects: Effects::default(),
                objects: Vec::new(),
                has_where: true,
                where_tautology: false,
                unreadable_reason: None,
                unsafe_setting: None,
                mentions: Mentions::default(),
                secrets: Vec::new(),
            },
            objects_seen: HashSet::new(),
            relations_seen: HashSet::new(),
            statements: 0,
            work: Vec::new(),
            scopes: Vec::new(),
            outer_stars: Vec::new(),
            renames: false,
            around_execute: false,
            ranges: HashMap::new(),
            clashes: HashSet::new(),
            is_body,
        }
    }

    /// A walk that leaves out what EXECUTE names.
    pub(super) fn around_execute() -> Self {
        Self { around_execute: true, ..Self::new(false) }
    }

    /// Walks one statement of the message.
    pub(super) fn statement(&mut self, raw: &'a RawStmt) -> Verb {
        let Some(node) = raw.stmt.as_ref().and_then(|stmt| stmt.node.as_ref()).map(|node| node.to_ref()) else {
            self.unreadable("a statement without content");
            return statements::UNKNOWN;
        };
        self.statements += 1;
        let mentions = &mut self.findings.mentions;
        (mentions.targets, mentions.defines, mentions.refers) = (None, None, None);
        // The results of several statements are not told apart.
        if self.statements == 1 {
            self.findings.mentions.targets = reads::targets(answering(node));
            self.outer_stars = match node {
                NodeRef::CopyStmt(_) => Vec::new(),
                node => reads::outer_stars(answering(node)),
            };
            self.findings.mentions.defines = reads::defined(node);
            self.findings.mentions.refers = reads::referred(node);
        }
        let verb = statements::verb(node);
        if verb == statements::UNKNOWN {
            self.unreadable("a kind of statement that is not known");
        }
        match node {
            NodeRef::ExplainStmt(explain) if !statements::executes(explain) => self.plan(node),
            _ => self.run(node),
        }
        verb
    }

    pub(super) fn finish(mut self) -> Findings {
        let mentions = &mut self.findings.mentions;
        if self.renames && mentions.stored.names_columns() {
            let reads = mentions.reads.clone();
            mentions.stored.extend(reads);
        }
        mentions.exclusive = self
            .ranges
            .iter()
            .filter(|(name, meaning)| meaning.is_some() && !self.clashes.contains(**name))
            .map(|(name, _)| (*name).to_owned())
            .collect();
        let both = |relation: &'_ Relation| [Some(relation.name.clone()), relation.alias.clone()];
        let rows: HashSet<String> =
            mentions.relations.iter().flat_map(both).flatten().chain(mentions.joins.iter().cloned()).collect();
        // A lone name that is also a relation's name, or a join's, is its whole row.
        let whole_row = |reads: &mut Reads| {
            reads.stars |= reads.columns.iter().any(|(qualifier, name)| qualifier.is_none() && rows.contains(name));
        };
        whole_row(&mut mentions.reads);
        whole_row(&mut mentions.stored);
        for target in mentions.targets.iter_mut().flatten() {
            if let Target::Value(reads) = target {
                whole_row(reads);
            }
        }
        self.findings
    }

    /// A plan without execution reads, whatever the statement would do.
    fn plan(&mut self, node: NodeRef<'a>) {
        let before =
            (self.findings.effects, self.findings.has_where, self.findings.where_tautology, self.findings.unreadable_reason);
        let objects = self.findings.objects.len();
        self.run(node);
        if self.findings.unreadable_reason == Some(UNKNOWN_NODE) {
            return;
        }
        (self.findings.effects, self.findings.has_where, self.findings.where_tautology, self.findings.unreadable_reason) = before;
        self.effects(&[Effect::Read]);
        self.findings.objects.iter_mut().skip(objects).for_each(|object| object.write = false);
        self.findings.mentions.plan_only = true;
    }

    fn run(&mut self, root: NodeRef<'a>) {
        self.work.push(Work::Visit(root));
        while let Some(work) = self.work.pop() {
            match work {
                Work::Visit(node) => self.visit(node),
                Work::OpenScope => self.scopes.push(Vec::new()),
                Work::Declare(name) => self.scopes.last_mut().into_iter().for_each(|scope| scope.push(name)),
                Work::CloseScope => drop(self.scopes.pop()),
            }
        }
    }

    fn visit(&mut self, node: NodeRef<'a>) {
        if judge(self, node) {
            return;
        }
        self.renames |= renames(node);
        self.range(node);
        match node {
            NodeRef::RangeVar(relation) => self.relation(relation, ObjectKind::Table, false),
            NodeRef::FuncCall(call) => self.call(call),
            NodeRef::TypeName(name) => self.called_by_name(&name.names),
            NodeRef::ObjectWithArgs(object) => self.called_by_name(&object.objname),
            NodeRef::RangeFunction(function) => {
                // Column aliases of a function rename nothing that a rule could name.
                self.work.extend(function.functions.iter().filter_map(node_of).map(Work::Visit));
                self.work.extend(function.coldeflist.iter().filter_map(node_of).map(Work::Visit));
                return;
            }
            _ => {}
        }
        note(node, &mut self.findings.mentions.reads, &self.outer_stars);
        self.descend(node);
    }

    /// Visits every child.
    pub(super) fn descend(&mut self, node: NodeRef<'a>) {
        self.descend_except(node, None, |_| false);
    }

    /// Visits every child but those that `skip` names; the common table expressions of `with` first, in a scope of their own.
    pub(super) fn descend_except(&mut self, node: NodeRef<'a>, with: Option<&'a WithClause>, skip: impl Fn(NodeRef<'a>) -> bool) {
        let mut below = Vec::new();
        if !children(node, &mut below) {
            self.unreadable(UNKNOWN_NODE);
        }
        let is_with =
            |node: &NodeRef<'a>| matches!(node, NodeRef::WithClause(clause) if with.is_some_and(|with| ptr::eq(*clause, with)));
        let rest = below.into_iter().filter(|node| !is_with(node) && !skip(*node)).map(Work::Visit);
        let Some(with) = with else {
            self.work.extend(rest.rev());
            return;
        };
        self.work.push(Work::CloseScope);
        self.work.extend(rest.rev());
        let expressions: Vec<&CommonTableExpr> =
            with.ctes.iter().filter_map(node_of).filter_map(common_table_expression).collect();
        if expressions.len() != with.ctes.len() {
            self.unreadable(UNKNOWN_NODE);
        }
        for expression in expressions.iter().rev() {
            if !with.recursive {
                self.work.push(Work::Declare(&expression.ctename));
            }
            self.work.push(Work::Visit(NodeRef::CommonTableExpr(expression)));
        }
        if with.recursive {
            self.work.extend(expressions.iter().map(|expression| Work::Declare(&expression.ctename)));
        }
        self.work.push(Work::OpenScope);
    }

    pub(super) fn effects(&mut self, effects: &[Effect]) {
        self.findings.effects.extend(Effects::of(effects));
    }

    pub(super) fn unreadable(&mut self, why: &'static str) {
        self.effects(&[Effect::Unreadable]);
        self.findings.mentions.reads.opaque = true;
        self.findings.unreadable_reason.get_or_insert(why);
    }

    /// EXECUTE: what runs is not to be seen here.
    pub(super) fn execute(&mut self) {
        if !self.around_execute {
            self.effects(&[Effect::ExecCode]);
            self.opaque();
        }
    }

    pub(super) fn setting(&mut self, name: &str, value: Option<&str>) {
        let unsafe_setting = settings::unsafe_setting(name, value);
        self.findings.unsafe_setting = self.findings.unsafe_setting.or(unsafe_setting);
    }

    pub(super) fn object(&mut self, kind: ObjectKind, schema: Option<&str>, name: &str, write: bool) {
        let schema = schema.filter(|schema| !schema.is_empty()).map(str::to_owned);
        let object = Object { kind, schema, name: name.to_owned(), write };
        if self.objects_seen.insert(object.clone()) {
            self.findings.objects.push(object);
        }
    }

    pub(super) fn secret(&mut self, literal: SecretLiteral) {
        self.findings.secrets.push(literal);
    }

    pub(super) fn set_operation(&mut self) {
        self.findings.mentions.set_operations = true;
    }

    /// UPDATE and DELETE: what their WHERE is worth.
    pub(super) fn condition(&mut self, condition: Option<&'a Node>) {
        match condition.and_then(node_of) {
            None => self.findings.has_where = false,
            Some(condition) => self.findings.where_tautology |= is_tautology(condition),
        }
    }

    /// MERGE: conditions that must hold together.
    pub(super) fn conditions(&mut self, conditions: &[Option<&'a Node>]) {
        let mut given = conditions.iter().filter_map(|condition| condition.and_then(node_of));
        self.findings.where_tautology |= given.all(is_tautology);
    }

    /// What is written elsewhere comes from here.
    pub(super) fn store(&mut self, source: NodeRef<'a>) {
        let reads = reads_of(source);
        self.findings.mentions.stored.extend(reads);
    }

    /// An assignment of UPDATE. `alone`: the statement names no relation but the one that it updates.
    pub(super) fn store_assignment(&mut self, assignment: NodeRef<'a>, alone: bool) {
        let mut reads = reads_of(assignment);
        if let (true, false, NodeRef::ResTarget(target)) = (alone, reads.sublinks, assignment) {
            reads.columns.retain(|(_, name)| *name != target.name);
        }
        self.findings.mentions.stored.extend(reads);
    }

    /// A value that a column is made from: itself, in which case it stays under its own mask, or others.
    pub(super) fn store_in(&mut self, column: &str, value: NodeRef<'a>) {
        let mut reads = reads_of(value);
        if !reads.sublinks {
            reads.columns.retain(|(_, name)| name != column);
        }
        self.findings.mentions.stored.extend(reads);
    }

    /// Every column of the mentioned relations is written elsewhere.
    pub(super) fn store_whole_rows(&mut self) {
        self.findings.mentions.stored.stars = true;
    }

    /// These columns of a relation are copied out; all of them, if none is named.
    pub(super) fn copy_out(&mut self, columns: &[Node]) {
        let reads = &mut self.findings.mentions.reads;
        reads.stars |= columns.is_empty();
        reads.columns.extend(strings(columns).into_iter().map(|name| (None, name.to_owned())));
    }

    pub(super) fn opaque(&mut self) {
        self.findings.mentions.reads.opaque = true;
    }

    /// Notes a relation; a lone name that a common table expression in scope has is that expression, unless it is written to.
    pub(super) fn relation(&mut self, relation: &'a RangeVar, kind: ObjectKind, write: bool) {
        let schema = (!relation.schemaname.is_empty()).then_some(relation.schemaname.as_str());
        let name = relation.relname.as_str();
        let alias = relation.alias.as_ref().map(|alias| alias.aliasname.as_str());
        if !write && schema.is_none() && self.scopes.iter().flatten().any(|expression| *expression == name) {
            self.called(alias.unwrap_or(name), None);
            return;
        }
        self.called(alias.unwrap_or(name), Some((schema, name)));
        if !write {
            self.effects(&[Effect::Read]);
        } else if name == "pg_settings" {
            self.effects(&[Effect::SessionLex]);
        } else if schema == Some("pg_catalog") || (schema.is_none() && name.starts_with("pg_")) {
            self.effects(&[Effect::Admin]);
        }
        self.object(kind, schema, name, write);
        if write {
            self.findings.mentions.written.insert((schema.map(str::to_owned), name.to_owned()));
        }
        if self.relations_seen.insert((schema, name, alias)) {
            let owned = Relation { schema: schema.map(str::to_owned), name: name.to_owned(), alias: alias.map(str::to_owned) };
            self.findings.mentions.relations.push(owned);
        }
    }

    /// Notes the names that FROM lists give to what is no relation.
    fn range(&mut self, node: NodeRef<'a>) {
        let mut name = |alias: Option<&'a Alias>| {
            let name = alias.map(|alias| alias.aliasname.as_str());
            name.into_iter().for_each(|name| self.called(name, None));
            name.map(str::to_owned)
        };
        match node {
            NodeRef::JoinExpr(join) => {
                let names = [name(join.alias.as_ref()), name(join.join_using_alias.as_ref())];
                self.findings.mentions.joins.extend(names.into_iter().flatten());
            }
            NodeRef::RangeSubselect(subselect) => drop(name(subselect.alias.as_ref())),
            NodeRef::RangeTableFunc(function) => drop(name(function.alias.as_ref())),
            NodeRef::JsonTable(table) => drop(name(table.alias.as_ref())),
            NodeRef::RangeFunction(function) if function.alias.is_some() => drop(name(function.alias.as_ref())),
            NodeRef::RangeFunction(function) => {
                for item in function.functions.iter().filter_map(node_of) {
                    let NodeRef::List(list) = item else { continue };
                    for call in list.items.iter().filter_map(node_of) {
                        let NodeRef::FuncCall(call) = call else { continue };
                        strings(&call.funcname).last().into_iter().for_each(|name| self.called(name, None));
                    }
                }
            }
            _ => {}
        }
    }

    fn called(&mut self, name: &'a str, relation: Option<(Option<&'a str>, &'a str)>) {
        match self.ranges.entry(name) {
            Entry::Vacant(entry) => drop(entry.insert(relation)),
            Entry::Occupied(mut entry) if *entry.get() != relation => drop(entry.insert(None)),
            Entry::Occupied(_) => {}
        }
    }

    /// Rules by name may not find the relation, or its column, afterwards.
    pub(super) fn relabel(&mut self, relation: Option<&RangeVar>, column: Option<&str>) {
        let Some(relation) = relation else { return };
        let schema = (!relation.schemaname.is_empty()).then(|| relation.schemaname.clone());
        let (relation, column) = (Some(relation.relname.clone()), column.map(str::to_owned));
        self.findings.mentions.relabelled.push(Relabelled { schema, relation, column });
    }

    pub(super) fn relabel_schema(&mut self, schema: &str) {
        let schema = Some(schema.to_owned());
        self.findings.mentions.relabelled.push(Relabelled { schema, relation: None, column: None });
    }

    /// The body of a function in SQL: judged as a part of the statement that makes it. What it reads, whoever calls it gets.
    pub(super) fn body(&mut self, text: &str) {
        if self.is_body {
            return self.unreadable("a function within a function cannot be judged");
        }
        let reading = super::read_body(text.as_bytes());
        let (statement, mentions) = (&reading.statement, Mentions::clone(&reading.mentions));
        self.findings.effects.extend(statement.effects);
        for object in &statement.objects {
            if self.objects_seen.insert(object.clone()) {
                self.findings.objects.push(object.clone());
            }
        }
        self.findings.has_where &= statement.has_where;
        self.findings.where_tautology |= statement.where_tautology;
        if !statement.readable {
            self.unreadable("the body of a function cannot be judged");
        }
        self.clashes.extend(mentions.reads.columns.iter().filter_map(|(qualifier, _)| qualifier.clone()));
        let all = &mut self.findings.mentions;
        all.relations.extend(mentions.relations);
        all.stored.extend(mentions.stored);
        all.stored.extend(mentions.reads);
        all.written.extend(mentions.written);
        all.relabelled.extend(mentions.relabelled);
        all.joins.extend(mentions.joins);
    }

    fn call(&mut self, call: &'a FuncCall) {
        let parts = strings(&call.funcname);
        let Some((name, qualifiers)) = parts.split_last() else {
            return self.unreadable(UNKNOWN_NODE);
        };
        self.effects(&[Effect::Read]);
        self.object(ObjectKind::Function, qualifiers.last().copied(), name, false);
        self.known_function(name);
        if *name == "set_config" {
            self.set_config(call);
        }
        // A function that does more than compute may store or send what it is given.
        if functions::keeps_arguments(name) || !functions::effects_of(name).is_empty() {
            call.args.iter().filter_map(node_of).for_each(|argument| self.store(argument));
        }
        if name.starts_with("dblink") {
            self.secret(SecretLiteral::All);
        }
    }

    fn known_function(&mut self, name: &str) {
        let effects = functions::effects_of(name);
        self.findings.effects.extend(effects);
        if effects.contains(Effect::Unreadable) {
            self.unreadable("a function that runs SQL text or reads what it is told to cannot be judged");
        }
    }

    /// A function that is named without being called here: by an operator, cast, aggregate, trigger or type.
    fn called_by_name(&mut self, name: &'a [Node]) {
        if let Some(name) = strings(name).last() {
            self.known_function(name);
        }
    }

    fn set_config(&mut self, call: &'a FuncCall) {
        match call.args.first().and_then(literal) {
            Some(name) => {
                self.findings.effects.extend(settings::effect_of(name).into_iter().collect());
                self.setting(name, call.args.get(1).and_then(literal));
            }
            // The name is computed: it may be any setting.
            None => self.effects(&[Effect::SessionLex]),
        }
    }
}

pub(super) const UNKNOWN_NODE: &str = "a part of the statement is of a kind that is not known";

/// The query whose rows a statement gives to the client, now or when it is executed.
fn answering(node: NodeRef<'_>) -> NodeRef<'_> {
    let query = match node {
        NodeRef::CopyStmt(copy) => copy.query.as_deref(),
        NodeRef::PrepareStmt(prepare) => prepare.query.as_deref(),
        _ => None,
    };
    query.and_then(node_of).unwrap_or(node)
}

/// True for what gives columns other names.
fn renames(node: NodeRef<'_>) -> bool {
    match node {
        NodeRef::Alias(alias) => !alias.colnames.is_empty(),
        NodeRef::CommonTableExpr(_)
        | NodeRef::JsonTable(_)
        | NodeRef::RangeFunction(_)
        | NodeRef::RangeSubselect(_)
        | NodeRef::RangeTableFunc(_) => true,
        _ => false,
    }
}

fn common_table_expression(node: NodeRef<'_>) -> Option<&CommonTableExpr> {
    match node {
        NodeRef::CommonTableExpr(expression) => Some(expression),
        _ => None,
    }
}
