use super::*;

fn glob(pattern: &str) -> Selector {
    Selector::Cgroup(globset::GlobBuilder::new(pattern).literal_separator(true).build().unwrap().compile_matcher())
}

/// A tree of plain directories: the scan does not ask what file system it is.
struct Tree(tempfile::TempDir);

impl Tree {
    fn with(paths: &[&str]) -> Self {
        let tree = Self(tempfile::tempdir().unwrap());
        paths.iter().for_each(|path| tree.add(path));
        tree
    }
    fn add(&self, path: &str) {
        fs::create_dir_all(self.0.path().join(path)).unwrap();
    }
    fn id(&self, path: &str) -> u64 {
        cgroup::cgroup_id(&self.0.path().join(path)).unwrap()
    }
    fn designator(&self, selectors: Vec<Selector>) -> Designator {
        let mut designator = Designator::new(self.0.path().into(), self.0.path().into(), Vec::new());
        designator.select(selectors);
        designator
    }
    fn designated(&self, paths: &[&str]) -> Vec<(u64, u32)> {
        let mut wanted: Vec<_> = paths.iter().map(|path| (self.id(path), Designation::DESIGNATED)).collect();
        wanted.sort_unstable();
        wanted
    }
}

fn settle(designator: &mut Designator) -> Changes {
    let changes = designator.sync();
    designator.applied(&changes);
    changes
}

#[test]
fn a_glob_designates_what_it_matches() {
    let tree = Tree::with(&["weir.slice/a", "weir.slice/b/c", "other.slice/a"]);
    let mut designator = tree.designator(vec![glob("/weir.slice/*")]);
    assert_eq!(settle(&mut designator).designate, tree.designated(&["weir.slice/a", "weir.slice/b"]));
}

#[test]
fn a_unit_is_found_wherever_it_is() {
    let tree = Tree::with(&["system.slice/orders.service", "system.slice/orders.service.d", "a/b/orders.service"]);
    let mut designator = tree.designator(vec![Selector::Unit("orders.service".into())]);
    assert_eq!(settle(&mut designator).designate, tree.designated(&["system.slice/orders.service", "a/b/orders.service"]));
}

#[test]
fn a_unit_that_restarts_is_designated_again() {
    let tree = Tree::with(&["s/orders.service"]);
    let before = tree.id("s/orders.service");
    let mut designator = tree.designator(vec![Selector::Unit("orders.service".into())]);
    settle(&mut designator);
    // The new one exists before the old one goes, so that the file system cannot give it the same number, as cgroupfs never does.
    tree.add("s/next");
    fs::remove_dir(tree.0.path().join("s/orders.service")).unwrap();
    fs::rename(tree.0.path().join("s/next"), tree.0.path().join("s/orders.service")).unwrap();
    let changes = settle(&mut designator);
    assert_eq!(changes.designate, tree.designated(&["s/orders.service"]));
    assert_eq!(changes.undesignate, [before]);
}

#[test]
fn nothing_changes_twice() {
    let tree = Tree::with(&["a"]);
    let mut designator = tree.designator(vec![glob("/a")]);
    settle(&mut designator);
    assert_eq!(settle(&mut designator), Changes::default());
}

#[test]
fn the_root_is_never_designated() {
    let tree = Tree::with(&[]);
    let mut designator = tree.designator(vec![glob("/**"), glob("/")]);
    assert_eq!(settle(&mut designator), Changes::default());
}

#[test]
fn what_another_agent_left_goes_when_nothing_selects_it() {
    let tree = Tree::with(&["a"]);
    let mut designator = Designator::new(tree.0.path().into(), tree.0.path().into(), vec![(999_999, Designation::DESIGNATED)]);
    designator.select(vec![glob("/a")]);
    assert_eq!(settle(&mut designator).undesignate, [999_999]);
}

#[test]
fn a_registered_cgroup_needs_no_selector() {
    let tree = Tree::with(&["run-1"]);
    let mut designator = tree.designator(Vec::new());
    designator.register("demo".into(), tree.id("run-1"));
    assert_eq!(settle(&mut designator).designate, [(tree.id("run-1"), REGISTERED)]);
    assert_eq!(designator.name(tree.id("run-1")).as_deref(), Some("demo"));
    designator.unregister(tree.id("run-1"));
    assert_eq!(settle(&mut designator).undesignate, [tree.id("run-1")]);
}

#[test]
fn what_an_agent_before_registered_stays_while_a_process_of_it_lives() {
    let tree = Tree::with(&["run-1", "run-2"]);
    let before = vec![(tree.id("run-1"), REGISTERED), (tree.id("run-2"), REGISTERED)];
    let events = |name: &str, populated: u8| {
        fs::write(tree.0.path().join(name).join("cgroup.events"), format!("populated {populated}\nfrozen 0\n")).unwrap();
    };
    events("run-1", 1);
    events("run-2", 0);
    let mut designator = Designator::new(tree.0.path().into(), tree.0.path().into(), before);
    designator.select(vec![glob("/other")]);
    assert_eq!(settle(&mut designator).undesignate, [tree.id("run-2")]);
    events("run-1", 0);
    assert_eq!(settle(&mut designator).undesignate, [tree.id("run-1")]);
}

#[test]
fn a_cgroup_deeper_than_the_kernel_looks_is_not_pretended_to_be_designated() {
    let levels = |count: usize| vec!["d"; count].join("/");
    let tree = Tree::with(&[&levels(DEPTH_MAX + 1)]);
    let mut designator = tree.designator(vec![glob("/**")]);
    let designated = settle(&mut designator).designate;
    assert!(designated.contains(&(tree.id(&levels(DEPTH_MAX)), Designation::DESIGNATED)));
    assert!(!designated.contains(&(tree.id(&levels(DEPTH_MAX + 1)), Designation::DESIGNATED)));
}

#[test]
fn an_agent_alone_in_a_designated_cgroup_is_exempt() {
    let tree = Tree::with(&["agent", "beside"]);
    fs::write(tree.0.path().join("agent/cgroup.procs"), format!("{}\n", std::process::id())).unwrap();
    let mut designator = tree.designator(vec![glob("/*")]);
    designator.own = Some(tree.0.path().join("agent"));
    let designated = settle(&mut designator).designate;
    assert!(designated.contains(&(tree.id("agent"), Designation::EXEMPT)));
    assert!(designated.contains(&(tree.id("beside"), Designation::DESIGNATED)));
}

#[test]
fn an_agent_beside_a_workload_does_not_free_it() {
    let tree = Tree::with(&["agent"]);
    fs::write(tree.0.path().join("agent/cgroup.procs"), format!("1\n{}\n", std::process::id())).unwrap();
    let mut designator = tree.designator(vec![glob("/*")]);
    designator.own = Some(tree.0.path().join("agent"));
    assert_eq!(settle(&mut designator).designate, tree.designated(&["agent"]));
}
