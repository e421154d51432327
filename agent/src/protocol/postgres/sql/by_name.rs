//! PREPARE, EXECUTE and DEALLOCATE: statements that SQL keeps under a name.

use bytes::Bytes;
use pg_query::{
    NodeRef,
    protobuf::{Node, RawStmt},
};

use super::{nodes::node_of, statements::executes};

/// What a message does with prepared statements, where its text alone tells.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum ByName {
    Deallocate(Bytes),
    Execute {
        name: Bytes,
        how: How,
    },
    Prepare(Bytes),
    /// Several statements, which prepare or deallocate these: afterwards the names may mean anything.
    Several(Vec<Bytes>),
}

/// What becomes of the rows of a prepared statement that is executed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum How {
    Answers,
    /// It is planned, not run.
    Explains,
    /// They are written into a new table.
    Stores,
}

impl ByName {
    pub(super) fn of(statements: &[RawStmt]) -> Option<Self> {
        let each = |raw: &RawStmt| raw.stmt.as_ref().and_then(|node| node_of(node)).and_then(Self::of_one);
        if let [only] = statements {
            return each(only);
        }
        let names: Vec<_> = statements.iter().filter_map(each).filter_map(Self::changed).collect();
        (!names.is_empty()).then_some(Self::Several(names))
    }

    fn of_one(node: NodeRef<'_>) -> Option<Self> {
        match node {
            NodeRef::DeallocateStmt(deallocate) if !deallocate.isall => Some(Self::Deallocate(name_of(&deallocate.name)?)),
            NodeRef::PrepareStmt(prepare) => Some(Self::Prepare(name_of(&prepare.name)?)),
            NodeRef::ExecuteStmt(_) => execute(node, How::Answers),
            NodeRef::ExplainStmt(explain) => {
                execute(query(&explain.query)?, if executes(explain) { How::Answers } else { How::Explains })
            }
            NodeRef::CreateTableAsStmt(create) => execute(query(&create.query)?, How::Stores),
            _ => None,
        }
    }

    fn changed(self) -> Option<Bytes> {
        match self {
            Self::Deallocate(name) | Self::Prepare(name) => Some(name),
            Self::Execute { .. } | Self::Several(_) => None,
        }
    }
}

fn query(node: &Option<Box<Node>>) -> Option<NodeRef<'_>> {
    node.as_deref().and_then(node_of)
}

fn execute(node: NodeRef<'_>, how: How) -> Option<ByName> {
    let NodeRef::ExecuteStmt(execute) = node else { return None };
    Some(ByName::Execute { name: name_of(&execute.name)?, how })
}

/// Names that the server is sure to tell apart as we do, whatever its encoding: nothing of them is converted or cut off.
fn name_of(name: &str) -> Option<Bytes> {
    (name.is_ascii() && name.len() < NAME_BYTES_MAX).then(|| Bytes::copy_from_slice(name.as_bytes()))
}

/// The server cuts names to this length (`NAMEDATALEN - 1`).
const NAME_BYTES_MAX: usize = 63;
