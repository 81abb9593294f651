//! The naming service as its clients see it: one node in this process, real calls.

#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::time::Duration;

use partha::services::naming::name_service::{
    AddError, DeleteError, ListError, LookupError, RebindError,
};
use partha::services::naming::{Entry, NameContext, NameService};
use partha::{ClassId, Client, ErrorKind, Node, NodeId, Uid};
use test_support::{TempDir, temp_dir};

const CLASS: ClassId = ClassId(0xC1A5);

struct Names {
    folder: TempDir,
    node: Node,
    client: Client,
}

impl Names {
    async fn start() -> Self {
        let folder = temp_dir("names");
        let node = start_in(&folder).await;
        let client = Client::connect(node.address().to_string()).await.unwrap();
        Self {
            folder,
            node,
            client,
        }
    }

    async fn restart(self) -> Self {
        self.node.shutdown(Duration::from_secs(10)).await.unwrap();
        let node = start_in(&self.folder).await;
        let client = Client::connect(node.address().to_string()).await.unwrap();
        Self {
            folder: self.folder,
            node,
            client,
        }
    }

    fn service(&self) -> &NameService {
        self.client.naming().unwrap().service()
    }

    async fn add(&self, path: &str, object: Uid) -> Result<(), AddError> {
        self.client
            .naming()
            .unwrap()
            .add(&self.client, path, object, CLASS)
            .await
    }

    async fn rebind(&self, path: &str, object: Uid) -> Result<(), RebindError> {
        self.client
            .naming()
            .unwrap()
            .rebind(&self.client, path, object, CLASS, &[])
            .await
    }

    async fn delete(&self, path: &str) -> Result<(), DeleteError> {
        self.client
            .naming()
            .unwrap()
            .delete(&self.client, path)
            .await
    }

    async fn lookup(&self, path: &str) -> Result<Entry, LookupError> {
        self.service().lookup(&self.client, path).await
    }

    async fn object(&self, path: &str) -> Uid {
        self.lookup(path).await.unwrap().object
    }

    async fn list(&self, path: &str, after: &str, limit: u32) -> Result<Vec<String>, ListError> {
        let page = self
            .service()
            .list(&self.client, path, after, limit)
            .await?;
        Ok(page.into_iter().map(|entry| entry.name).collect())
    }
}

async fn start_in(folder: &TempDir) -> Node {
    let builder = Node::builder()
        .name("naming")
        .data_dir(folder.path())
        .shards(2);
    partha_naming::start(builder).await.unwrap()
}

fn uid(number: u64) -> Uid {
    Uid {
        node: NodeId(77),
        local: number,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_is_found_in_its_context_however_deep() {
    let names = Names::start().await;
    names.add("/bank/accounts/alice", uid(1)).await.unwrap();
    names.add("top", uid(2)).await.unwrap();
    let entry = names.lookup("bank/accounts/alice").await.unwrap();
    assert_eq!(
        (entry.object, entry.class, entry.context),
        (uid(1), CLASS.0, false)
    );
    assert_eq!(entry.name, "alice");
    assert_eq!(names.object("/top").await, uid(2));
    let context = names.lookup("/bank/accounts").await.unwrap();
    assert!(context.context && context.class == NameContext::CLASS.0);
    let root = names.lookup("").await.unwrap();
    assert!(root.context);
    assert_eq!(names.object("/").await, root.object);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_found_is_told_with_the_deepest_part_that_is() {
    let names = Names::start().await;
    names.add("/bank/accounts/alice", uid(1)).await.unwrap();
    let Err(LookupError::NameNotFound(e)) = names.lookup("/bank/accounts/bob/x").await else {
        panic!("expected NameNotFound");
    };
    assert_eq!(
        (e.path.as_str(), e.found.as_str()),
        ("/bank/accounts/bob/x", "bank/accounts")
    );
    assert_eq!(e.missing, "bob");
    let Err(LookupError::NameNotFound(e)) = names.lookup("/shop").await else {
        panic!("expected NameNotFound");
    };
    assert_eq!((e.found.as_str(), e.missing.as_str()), ("", "shop"));
    let Err(LookupError::NotAContext(e)) = names.lookup("/bank/accounts/alice/x").await else {
        panic!("expected NotAContext");
    };
    assert_eq!(e.part, "bank/accounts/alice");
    assert!(matches!(
        names.lookup("/bank//x").await,
        Err(LookupError::BadName(_))
    ));
    let words = names
        .client
        .naming()
        .unwrap()
        .lookup(&names.client, "/bank/bob")
        .await;
    let words = words.unwrap_err();
    assert_eq!(words.kind(), ErrorKind::NameNotFound);
    assert!(words.detail().contains("'/bank/bob'"), "{words}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_is_given_once_and_rebound_at_will() {
    let names = Names::start().await;
    names.add("/a/x", uid(1)).await.unwrap();
    for object in [uid(2), uid(1)] {
        let Err(AddError::NameExists(e)) = names.add("/a/x", object).await else {
            panic!("expected NameExists");
        };
        assert_eq!((e.path.as_str(), e.object), ("/a/x", uid(1)));
    }
    names.rebind("/a/x", uid(2)).await.unwrap();
    assert_eq!(names.object("/a/x").await, uid(2));
    names.rebind("/b/new", uid(3)).await.unwrap();
    assert_eq!(names.object("/b/new").await, uid(3));
    let replaced = names.rebind("/a", uid(4)).await;
    assert!(
        matches!(replaced, Err(RebindError::NameExists(_))),
        "{replaced:?}"
    );
    assert!(matches!(
        names.add("/", uid(1)).await,
        Err(AddError::BadName(_))
    ));
    assert!(matches!(
        names.add("/a/nil", Uid::NIL).await,
        Err(AddError::BadName(_))
    ));
}

#[tokio::test(flavor = "multi_thread")]
async fn contexts_are_made_only_if_asked_for() {
    let names = Names::start().await;
    let service = names.service();
    let add = service
        .add(&names.client, "/no/such/x", uid(1), CLASS.0, &[], false)
        .await;
    let Err(AddError::NameNotFound(e)) = add else {
        panic!("expected NameNotFound");
    };
    assert_eq!((e.found.as_str(), e.missing.as_str()), ("", "no"));
    assert!(matches!(
        names.lookup("/no").await,
        Err(LookupError::NameNotFound(_))
    ));
}

#[tokio::test(flavor = "multi_thread")]
async fn several_names_may_stand_for_one_object() {
    let names = Names::start().await;
    names.add("/people/alice", uid(1)).await.unwrap();
    names.add("/bank/customer-1", uid(1)).await.unwrap();
    names.delete("/people/alice").await.unwrap();
    assert_eq!(names.object("/bank/customer-1").await, uid(1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_context_may_have_a_second_name_and_even_contain_itself() {
    let names = Names::start().await;
    names.add("/a/b/x", uid(1)).await.unwrap();
    let a = names.object("/a").await;
    let naming = names.client.naming().unwrap();
    naming
        .add(&names.client, "/a/b/up", a, NameContext::CLASS)
        .await
        .unwrap();
    assert_eq!(names.object("/a/b/up/b/up/b/x").await, uid(1));
    names.add("/a/b/up/b/y", uid(2)).await.unwrap();
    assert_eq!(names.object("/a/b/y").await, uid(2));
    // Only a name is taken away: the context still has its own.
    names.delete("/a/b/up").await.unwrap();
    assert_eq!(names.object("/a/b/x").await, uid(1));
    names.add("/a/b/z", uid(3)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn deleting_takes_names_and_empty_contexts() {
    let names = Names::start().await;
    names.add("/a/b/x", uid(1)).await.unwrap();
    let Err(DeleteError::ContextNotEmpty(e)) = names.delete("/a/b").await else {
        panic!("expected ContextNotEmpty");
    };
    assert_eq!((e.path.as_str(), e.names), ("a/b", 1));
    names.delete("/a/b/x").await.unwrap();
    let again = names.delete("/a/b/x").await;
    assert!(
        matches!(again, Err(DeleteError::NameNotFound(_))),
        "{again:?}"
    );
    names.delete("/a/b").await.unwrap();
    assert!(names.list("/a", "", 10).await.unwrap().is_empty());
    assert!(matches!(
        names.delete("/").await,
        Err(DeleteError::BadName(_))
    ));
    names.add("/a/b/x", uid(2)).await.unwrap();
    assert_eq!(names.object("/a/b/x").await, uid(2));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deletion_that_was_cut_off_is_finished_by_the_next_addition() {
    let names = Names::start().await;
    names.add("/a/b/x", uid(1)).await.unwrap();
    names.delete("/a/b/x").await.unwrap();
    // What a crash in the middle of deleting /a/b leaves: a closed context with a name.
    let closed = NameContext::from_uid(names.object("/a/b").await);
    assert!(closed.close(names.node.client(), "a/b").await.unwrap());
    names.add("/a/b/x", uid(2)).await.unwrap();
    assert_ne!(names.object("/a/b").await, closed.uid());
    assert_eq!(names.object("/a/b/x").await, uid(2));
    names.add("/c/d/e/x", uid(3)).await.unwrap();
    names.delete("/c/d/e/x").await.unwrap();
    names.delete("/c/d/e").await.unwrap();
    let closed = NameContext::from_uid(names.object("/c/d").await);
    assert!(closed.close(names.node.client(), "c/d").await.unwrap());
    names.add("/c/d/e/x", uid(4)).await.unwrap();
    assert_eq!(names.object("/c/d/e/x").await, uid(4));
}

#[tokio::test(flavor = "multi_thread")]
async fn names_are_listed_in_order_page_by_page() {
    let names = Names::start().await;
    let mut expected: Vec<String> = (0..25).map(|i| format!("n{i:02}")).collect();
    expected.push("é".to_owned());
    let adding = expected.iter().rev().map(|name| {
        let path = format!("/many/{name}");
        let names = &names;
        async move { names.add(&path, uid(9)).await.unwrap() }
    });
    for add in adding {
        add.await;
    }
    let (mut seen, mut after) = (Vec::new(), String::new());
    loop {
        let page = names.list("/many", &after, 7).await.unwrap();
        let Some(last) = page.last() else { break };
        assert!(page.len() <= 7);
        after = last.clone();
        seen.extend(page);
    }
    assert_eq!(seen, expected);
    assert!(matches!(
        names.list("/none", "", 7).await,
        Err(ListError::NameNotFound(_))
    ));
    assert!(matches!(
        names.list("/many/n01", "", 7).await,
        Err(ListError::NotAContext(_))
    ));
}

#[tokio::test(flavor = "multi_thread")]
async fn asking_again_under_the_same_id_changes_nothing_twice() {
    let names = Names::start().await;
    let (client, service) = (&names.client, names.service());
    let id = client.new_call_id();
    for round in 0..3 {
        let caller = if round == 0 {
            client.call().id(id)
        } else {
            client.call().again(id)
        };
        service
            .add(&caller, "/a/x", uid(1), CLASS.0, &[], true)
            .await
            .unwrap();
    }
    let id = client.new_call_id();
    for round in 0..3 {
        let caller = if round == 0 {
            client.call().id(id)
        } else {
            client.call().again(id)
        };
        service.delete(&caller, "/a/x").await.unwrap();
    }
    assert!(matches!(
        names.lookup("/a/x").await,
        Err(LookupError::NameNotFound(_))
    ));
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_who_want_a_name_one_gets_it() {
    let names = Names::start().await;
    let mut tasks = Vec::new();
    for number in 1..=40 {
        let client = names.client.clone();
        tasks.push(tokio::spawn(async move {
            let naming = client.naming().unwrap();
            naming
                .add(&client, "/x/y/z/wanted", uid(number), CLASS)
                .await
                .map(|()| number)
        }));
    }
    let mut winners = Vec::new();
    for task in tasks {
        match task.await.unwrap() {
            Ok(number) => winners.push(number),
            Err(AddError::NameExists(_)) => {}
            Err(error) => panic!("{error}"),
        }
    }
    assert_eq!(winners.len(), 1);
    assert_eq!(names.object("/x/y/z/wanted").await, uid(winners[0]));
    assert_eq!(names.list("/", "", 10).await.unwrap(), ["x"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn adding_below_what_is_being_deleted_loses_no_name() {
    let names = Names::start().await;
    for round in 0..20 {
        names.add("/box/first", uid(1)).await.unwrap();
        names.delete("/box/first").await.unwrap();
        let client = names.client.clone();
        let deleting =
            tokio::spawn(async move { client.naming().unwrap().delete(&client, "/box").await });
        names.add("/box/second", uid(2)).await.unwrap();
        let deleted = deleting.await.unwrap();
        assert_eq!(
            names.object("/box/second").await,
            uid(2),
            "round {round}: {deleted:?}"
        );
        names.delete("/box/second").await.unwrap();
        names.delete("/box").await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn names_outlive_the_process() {
    let names = Names::start().await;
    names.add("/bank/accounts/alice", uid(1)).await.unwrap();
    let root = names.object("/").await;
    let names = names.restart().await;
    assert_eq!(names.object("/bank/accounts/alice").await, uid(1));
    assert_eq!(names.object("/").await, root);
    names.add("/bank/accounts/bob", uid(2)).await.unwrap();
    assert_eq!(
        names.list("/bank/accounts", "", 10).await.unwrap(),
        ["alice", "bob"]
    );
}
