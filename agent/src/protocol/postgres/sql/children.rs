//! The children of every node that libpg_query's raw grammar can produce: a closed table.
//!
//! Each row names every field of its node, and the patterns made from it are exhaustive: a field that a newer grammar adds does
//! not compile until someone has looked at it. A node that is not in the table has no known children, and its statement is
//! unreadable: nothing is ever skipped in silence.

use pg_query::{
    NodeRef,
    protobuf::{self, a_const},
};

/// Appends the children of `node` in the order of the grammar's fields. False: the node is not one that the raw grammar makes.
#[must_use]
pub(super) fn children<'a>(node: NodeRef<'a>, out: &mut Vec<NodeRef<'a>>) -> bool {
    push_children(node, out)
}

/// What a field of a node holds: nodes, or plain values without children.
trait Field {
    fn push<'a>(&'a self, out: &mut Vec<NodeRef<'a>>);
}

impl Field for protobuf::Node {
    fn push<'a>(&'a self, out: &mut Vec<NodeRef<'a>>) {
        out.extend(self.node.as_ref().map(|node| node.to_ref()));
    }
}

impl<T: Field> Field for Option<T> {
    fn push<'a>(&'a self, out: &mut Vec<NodeRef<'a>>) {
        if let Some(field) = self {
            field.push(out);
        }
    }
}

impl<T: Field> Field for Box<T> {
    fn push<'a>(&'a self, out: &mut Vec<NodeRef<'a>>) {
        self.as_ref().push(out);
    }
}

impl<T: Field> Field for Vec<T> {
    fn push<'a>(&'a self, out: &mut Vec<NodeRef<'a>>) {
        self.iter().for_each(|field| field.push(out));
    }
}

macro_rules! plain_fields {
    ($($plain:ty),+) => { $(impl Field for $plain { fn push<'a>(&'a self, _: &mut Vec<NodeRef<'a>>) {} })+ };
}

plain_fields!(bool, i32, i64, u32, String, a_const::Val);

macro_rules! node_fields {
    ($($name:ident $(= $message:ident)?),+ $(,)?) => {
        $(node_fields!(@one $name $(= $message)?);)+
    };
    (@one $name:ident) => { node_fields!(@one $name = $name); };
    (@one $name:ident = $message:ident) => {
        impl Field for protobuf::$message {
            fn push<'a>(&'a self, out: &mut Vec<NodeRef<'a>>) {
                out.push(NodeRef::$name(self));
            }
        }
    };
}

// Nodes that stand directly in a field of another one.
node_fields! {
    Alias, CollateClause, CreateStmt, CtecycleClause = CteCycleClause, CtesearchClause = CteSearchClause, FuncCall,
    FuncExpr, GrantStmt, InferClause, IntoClause, JsonAggConstructor, JsonBehavior, JsonFormat, JsonKeyValue,
    JsonOutput, JsonReturning, JsonTablePathSpec, JsonValueExpr, ObjectWithArgs, OnConflictClause, PartitionBoundSpec,
    PartitionSpec, PublicationTable, RangeVar, RoleSpec, SelectStmt, String, TypeName, VariableSetStmt, WindowDef, WithClause
}

macro_rules! table {
    ($($name:ident $(= $message:ident)? { $($field:ident)* })+) => {
        fn push_children<'a>(node: NodeRef<'a>, out: &mut Vec<NodeRef<'a>>) -> bool {
            match node {
                $(NodeRef::$name(node) => {
                    table!(@row node, out, $name $(= $message)? { $($field)* });
                    true
                })+
                _ => false,
            }
        }
    };
    (@row $node:ident, $out:ident, $name:ident { $($field:ident)* }) => {
        table!(@row $node, $out, $name = $name { $($field)* });
    };
    (@row $node:ident, $out:ident, $name:ident = $message:ident { $($field:ident)* }) => {
        let protobuf::$message { $($field),* } = $node;
        $(Field::push($field, $out);)*
    };
}

table! {
    AArrayExpr { elements location }
    AConst { isnull location val }
    AExpr { kind name lexpr rexpr location }
    AIndices { is_slice lidx uidx }
    AIndirection { arg indirection }
    AStar {}
    AccessPriv { priv_name cols }
    Alias { aliasname colnames }
    AlterCollationStmt { collname }
    AlterDatabaseRefreshCollStmt { dbname }
    AlterDatabaseSetStmt { dbname setstmt }
    AlterDatabaseStmt { dbname options }
    AlterDefaultPrivilegesStmt { options action }
    AlterDomainStmt { subtype type_name name def behavior missing_ok }
    AlterEnumStmt { type_name old_val new_val new_val_neighbor new_val_is_after skip_if_new_val_exists }
    AlterEventTrigStmt { trigname tgenabled }
    AlterExtensionContentsStmt { extname action objtype object }
    AlterExtensionStmt { extname options }
    AlterFdwStmt { fdwname func_options options }
    AlterForeignServerStmt { servername version options has_version }
    AlterFunctionStmt { objtype func actions }
    AlterObjectDependsStmt { object_type relation object extname remove }
    AlterObjectSchemaStmt { object_type relation object newschema missing_ok }
    AlterOpFamilyStmt { opfamilyname amname is_drop items }
    AlterOperatorStmt { opername options }
    AlterOwnerStmt { object_type relation object newowner }
    AlterPolicyStmt { policy_name table roles qual with_check }
    AlterPublicationStmt { pubname options pubobjects for_all_tables action }
    AlterRoleSetStmt { role database setstmt }
    AlterRoleStmt { role options action }
    AlterSeqStmt { sequence options for_identity missing_ok }
    AlterStatsStmt { defnames stxstattarget missing_ok }
    AlterSubscriptionStmt { kind subname conninfo publication options conninfo_location }
    AlterSystemStmt { setstmt }
    AlterTableCmd { subtype name num newowner def behavior missing_ok recurse }
    AlterTableMoveAllStmt { orig_tablespacename objtype roles new_tablespacename nowait }
    AlterTableSpaceOptionsStmt { tablespacename options is_reset }
    AlterTableStmt { relation cmds objtype missing_ok }
    AlterTsconfigurationStmt = AlterTsConfigurationStmt { kind cfgname tokentype dicts r#override replace missing_ok }
    AlterTsdictionaryStmt = AlterTsDictionaryStmt { dictname options }
    AlterTypeStmt { type_name options }
    AlterUserMappingStmt { user servername options }
    BitString { bsval }
    BoolExpr { xpr boolop args location }
    Boolean { boolval }
    BooleanTest { xpr arg booltesttype location }
    CallStmt { funccall funcexpr outargs }
    CaseExpr { xpr casetype casecollid arg args defresult location }
    CaseWhen { xpr expr result location }
    CheckPointStmt {}
    ClosePortalStmt { portalname }
    ClusterStmt { relation indexname params }
    CoalesceExpr { xpr coalescetype coalescecollid args location }
    CollateClause { arg collname location }
    ColumnDef { colname type_name compression inhcount is_local is_not_null is_from_type storage storage_name raw_default
        cooked_default identity identity_sequence generated coll_clause coll_oid constraints fdwoptions location }
    ColumnRef { fields location }
    CommentStmt { objtype object comment }
    CommonTableExpr { ctename aliascolnames ctematerialized ctequery search_clause cycle_clause location cterecursive
        cterefcount ctecolnames ctecoltypes ctecoltypmods ctecolcollations }
    CompositeTypeStmt { typevar coldeflist }
    Constraint { contype conname deferrable initdeferred skip_validation initially_valid is_no_inherit raw_expr cooked_expr
        generated_when inhcount nulls_not_distinct keys including exclusions options indexname indexspace
        reset_default_tblspc access_method where_clause pktable fk_attrs pk_attrs fk_matchtype fk_upd_action fk_del_action
        fk_del_set_cols old_conpfeqop old_pktable_oid location }
    ConstraintsSetStmt { constraints deferred }
    CopyStmt { relation query attlist is_from is_program filename options where_clause }
    CreateAmStmt { amname handler_name amtype }
    CreateCastStmt { sourcetype targettype func context inout }
    CreateConversionStmt { conversion_name for_encoding_name to_encoding_name func_name def }
    CreateDomainStmt { domainname type_name coll_clause constraints }
    CreateEnumStmt { type_name vals }
    CreateEventTrigStmt { trigname eventname whenclause funcname }
    CreateExtensionStmt { extname if_not_exists options }
    CreateFdwStmt { fdwname func_options options }
    CreateForeignServerStmt { servername servertype version fdwname if_not_exists options }
    CreateForeignTableStmt { base_stmt servername options }
    CreateFunctionStmt { is_procedure replace funcname parameters return_type options sql_body }
    CreateOpClassItem { itemtype name number order_family class_args storedtype }
    CreateOpClassStmt { opclassname opfamilyname amname datatype items is_default }
    CreateOpFamilyStmt { opfamilyname amname }
    CreatePlangStmt = CreatePLangStmt { replace plname plhandler plinline plvalidator pltrusted }
    CreatePolicyStmt { policy_name table cmd_name permissive roles qual with_check }
    CreatePublicationStmt { pubname options pubobjects for_all_tables }
    CreateRangeStmt { type_name params }
    CreateRoleStmt { stmt_type role options }
    CreateSchemaStmt { schemaname authrole schema_elts if_not_exists }
    CreateSeqStmt { sequence options owner_id for_identity if_not_exists }
    CreateStatsStmt { defnames stat_types exprs relations stxcomment transformed if_not_exists }
    CreateStmt { relation table_elts inh_relations partbound partspec of_typename constraints options oncommit
        tablespacename access_method if_not_exists }
    CreateSubscriptionStmt { subname conninfo publication options conninfo_location }
    CreateTableAsStmt { query into objtype is_select_into if_not_exists }
    CreateTableSpaceStmt { tablespacename owner location options }
    CreateTransformStmt { replace type_name lang fromsql tosql }
    CreateTrigStmt { replace isconstraint trigname relation funcname args row timing events columns when_clause
        transition_rels deferrable initdeferred constrrel }
    CreateUserMappingStmt { user servername if_not_exists options }
    CreatedbStmt { dbname options }
    CtecycleClause = CteCycleClause { cycle_col_list cycle_mark_column cycle_mark_value cycle_mark_default cycle_path_column
        location cycle_mark_type cycle_mark_typmod cycle_mark_collation cycle_mark_neop }
    CtesearchClause = CteSearchClause { search_col_list search_breadth_first search_seq_column location }
    CurrentOfExpr { xpr cvarno cursor_name cursor_param }
    DeallocateStmt { name isall location }
    DeclareCursorStmt { portalname options query }
    DefElem { defnamespace defname arg defaction location arg_location }
    DefineStmt { kind oldstyle defnames args definition if_not_exists replace }
    DeleteStmt { relation using_clause where_clause returning_list with_clause }
    DiscardStmt { target }
    DoStmt { args }
    DropOwnedStmt { roles behavior }
    DropRoleStmt { roles missing_ok }
    DropStmt { objects remove_type behavior missing_ok concurrent }
    DropSubscriptionStmt { subname missing_ok behavior }
    DropTableSpaceStmt { tablespacename missing_ok }
    DropUserMappingStmt { user servername missing_ok }
    DropdbStmt { dbname missing_ok options }
    ExecuteStmt { name params }
    ExplainStmt { query options }
    FetchStmt { direction how_many portalname ismove }
    Float { fval }
    FuncCall { funcname args agg_order agg_filter over agg_within_group agg_star agg_distinct func_variadic funcformat
        location }
    FunctionParameter { name arg_type mode defexpr }
    GrantRoleStmt { granted_roles grantee_roles is_grant opt grantor behavior }
    GrantStmt { is_grant targtype objtype objects privileges grantees grant_option grantor behavior }
    GroupingFunc { xpr args refs agglevelsup location }
    GroupingSet { kind content location }
    ImportForeignSchemaStmt { server_name remote_schema local_schema list_type table_list options }
    IndexElem { name expr indexcolname collation opclass opclassopts ordering nulls_ordering }
    IndexStmt { idxname relation access_method table_space index_params index_including_params options where_clause
        exclude_op_names idxcomment index_oid old_number old_create_subid old_first_relfilelocator_subid unique
        nulls_not_distinct primary isconstraint deferrable initdeferred transformed concurrent if_not_exists
        reset_default_tblspc }
    InferClause { index_elems where_clause conname location }
    InsertStmt { relation cols select_stmt on_conflict_clause returning_list with_clause r#override }
    IntList { items }
    Integer { ival }
    IntoClause { rel col_names access_method options on_commit table_space_name view_query skip_data }
    JoinExpr { jointype is_natural larg rarg using_clause join_using_alias quals alias rtindex }
    JsonAggConstructor { output agg_filter agg_order over location }
    JsonArgument { val name }
    JsonArrayAgg { constructor arg absent_on_null }
    JsonArrayConstructor { exprs output absent_on_null location }
    JsonArrayQueryConstructor { query output format absent_on_null location }
    JsonBehavior { btype expr coerce location }
    JsonFormat { format_type encoding location }
    JsonFuncExpr { op column_name context_item pathspec passing output on_empty on_error wrapper quotes location }
    JsonIsPredicate { expr format item_type unique_keys location }
    JsonKeyValue { key value }
    JsonObjectAgg { constructor arg absent_on_null unique }
    JsonObjectConstructor { exprs output absent_on_null unique location }
    JsonOutput { type_name returning }
    JsonParseExpr { expr output unique_keys location }
    JsonReturning { format typid typmod }
    JsonScalarExpr { expr output location }
    JsonSerializeExpr { expr output location }
    JsonTable { context_item pathspec passing columns on_error alias lateral location }
    JsonTableColumn { coltype name type_name pathspec format wrapper quotes columns on_empty on_error location }
    JsonTablePathSpec { string name name_location location }
    JsonValueExpr { raw_expr formatted_expr format }
    List { items }
    ListenStmt { conditionname }
    LoadStmt { filename }
    LockStmt { relations mode nowait }
    LockingClause { locked_rels strength wait_policy }
    MergeStmt { relation source_relation join_condition merge_when_clauses returning_list with_clause }
    MergeWhenClause { match_kind command_type r#override condition target_list values }
    MinMaxExpr { xpr minmaxtype minmaxcollid inputcollid op args location }
    MultiAssignRef { source colno ncolumns }
    NamedArgExpr { xpr arg name argnumber location }
    NotifyStmt { conditionname payload payload_location }
    NullTest { xpr arg nulltesttype argisrow location }
    ObjectWithArgs { objname objargs objfuncargs args_unspecified }
    OidList { items }
    OnConflictClause { action infer target_list where_clause location }
    ParamRef { number location }
    PartitionBoundSpec { strategy is_default modulus remainder listdatums lowerdatums upperdatums location }
    PartitionCmd { name bound concurrent }
    PartitionElem { name expr collation opclass location }
    PartitionRangeDatum { kind value location }
    PartitionSpec { strategy part_params location }
    PlassignStmt = PlAssignStmt { name indirection nnames val location }
    PrepareStmt { name argtypes query }
    PublicationObjSpec { pubobjtype name pubtable location }
    PublicationTable { relation where_clause columns }
    RangeFunction { lateral ordinality is_rowsfrom functions alias coldeflist }
    RangeSubselect { lateral subquery alias }
    RangeTableFunc { lateral docexpr rowexpr namespaces columns alias location }
    RangeTableFuncCol { colname type_name for_ordinality is_not_null colexpr coldefexpr location }
    RangeTableSample { relation method args repeatable location }
    RangeVar { catalogname schemaname relname inh relpersistence alias location }
    RawStmt { stmt stmt_location stmt_len }
    ReassignOwnedStmt { roles newrole }
    RefreshMatViewStmt { concurrent skip_data relation }
    ReindexStmt { kind relation name params }
    RenameStmt { rename_type relation_type relation object subname newname behavior missing_ok }
    ReplicaIdentityStmt { identity_type name }
    ResTarget { name indirection val location }
    ReturnStmt { returnval }
    RoleSpec { roletype rolename location }
    RowExpr { xpr args row_typeid row_format colnames location }
    RuleStmt { relation rulename where_clause event instead actions replace }
    SecLabelStmt { objtype object provider label }
    SelectStmt { distinct_clause into_clause target_list from_clause where_clause group_clause group_distinct having_clause
        window_clause values_lists sort_clause limit_offset limit_count limit_option locking_clause with_clause op all larg
        rarg }
    SetToDefault { xpr type_id type_mod collation location }
    SinglePartitionSpec {}
    SortBy { node sortby_dir sortby_nulls use_op location }
    SqlvalueFunction = SqlValueFunction { xpr op r#type typmod location }
    StatsElem { name expr }
    String { sval }
    SubLink { xpr sub_link_type sub_link_id testexpr oper_name subselect location }
    TableLikeClause { relation options relation_oid }
    TransactionStmt { kind options savepoint_name gid chain location }
    TriggerTransition { name is_new is_table }
    TruncateStmt { relations restart_seqs behavior }
    TypeCast { arg type_name location }
    TypeName { names type_oid setof pct_type typmods typemod array_bounds location }
    UnlistenStmt { conditionname }
    UpdateStmt { relation target_list where_clause from_clause returning_list with_clause }
    VacuumRelation { relation oid va_cols }
    VacuumStmt { options rels is_vacuumcmd }
    VariableSetStmt { kind name args is_local }
    VariableShowStmt { name }
    ViewStmt { view aliases query replace options with_check_option }
    WindowDef { name refname partition_clause order_clause frame_options start_offset end_offset location }
    WithClause { ctes recursive location }
    XmlExpr { xpr op name named_args arg_names args xmloption indent r#type typmod location }
    XmlSerialize { xmloption expr type_name indent location }
}
