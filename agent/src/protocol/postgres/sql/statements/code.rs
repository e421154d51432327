//! Code that runs without being seen.

use pg_query::{NodeRef as N, protobuf::CreateFunctionStmt};

use super::{
    super::{
        nodes::{node_of, strings},
        walk::Walk,
    },
    objects::named,
    options::{definitions, is_string},
};
use crate::flow::{
    Effect::{Admin, Create, ExecCode, Read},
    ObjectKind,
};

pub(super) fn tag(node: N<'_>) -> Option<&'static str> {
    Some(match node {
        N::DoStmt(_) => "DO",
        N::CallStmt(_) => "CALL",
        N::ExecuteStmt(_) => "EXECUTE",
        N::FetchStmt(fetch) if fetch.ismove => "MOVE",
        N::FetchStmt(_) => "FETCH",
        N::CreateFunctionStmt(_) => "CREATE FUNCTION",
        N::LoadStmt(_) => "LOAD",
        _ => return None,
    })
}

pub(super) fn judge<'a>(walk: &mut Walk<'a>, node: N<'a>) -> bool {
    match node {
        N::DoStmt(_) => {
            walk.effects(&[ExecCode]);
            walk.unreadable("code in a DO block cannot be judged");
        }
        N::CallStmt(_) => {
            walk.effects(&[ExecCode]);
            walk.unreadable("the code of a procedure cannot be judged");
            walk.descend(node);
        }
        N::ExecuteStmt(_) => {
            walk.execute();
            walk.descend(node);
        }
        N::FetchStmt(_) => {
            walk.effects(&[Read]);
            walk.opaque();
        }
        N::CreateFunctionStmt(function) => create_function(walk, node, function),
        N::LoadStmt(_) => {
            walk.effects(&[Admin, ExecCode]);
            walk.unreadable("a library in machine code cannot be judged");
        }
        _ => return false,
    }
    true
}

fn create_function<'a>(walk: &mut Walk<'a>, node: N<'a>, function: &'a CreateFunctionStmt) {
    walk.effects(&[Create]);
    named(walk, ObjectKind::Function, &function.funcname);
    for option in definitions(&function.options).filter(|option| option.defname == "language") {
        // A function in machine code is whatever its library says; an internal one is a built-in under another name.
        if option.arg.as_deref().and_then(node_of).is_some_and(|language| is_string(language, &["c", "internal"])) {
            walk.effects(&[Admin, ExecCode]);
            walk.unreadable("a function in machine code cannot be judged");
        } else if !option.arg.as_deref().and_then(node_of).is_some_and(|language| is_string(language, &["sql"])) {
            walk.effects(&[ExecCode]);
            walk.unreadable("a function in another language than SQL cannot be judged");
        }
    }
    for body in definitions(&function.options).filter(|option| option.defname == "as") {
        match body.arg.as_deref().and_then(node_of) {
            Some(N::List(list)) => strings(&list.items).into_iter().for_each(|text| walk.body(text)),
            Some(N::String(text)) => walk.body(&text.sval),
            _ => walk.unreadable("the body of a function cannot be judged"),
        }
    }
    if let Some(body) = function.sql_body.as_deref().and_then(node_of) {
        walk.store(body);
    }
    walk.descend(node);
}
