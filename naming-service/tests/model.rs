//! Random operations on the naming service against a model of a few lines.
//!
//! Few parts and short paths, so that operations meet: names below names, contexts that are
//! deleted and made again. The service is restarted on the way.

#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::collections::BTreeMap;
use std::time::Duration;

use partha::services::naming::name_service::{AddError, DeleteError, LookupError, RebindError};
use partha::{ClassId, Client, Node, NodeId, Uid};
use test_support::{TempDir, temp_dir};

const CLASS: ClassId = ClassId(7);
const STEPS: u32 = 300;
const PARTS: [&str; 3] = ["a", "b", "c"];

/// What an operation answered, in one word and what matters of it.
#[derive(Debug, PartialEq, Eq)]
enum Answer {
    Done,
    Object(Uid),
    Context,
    Exists(Uid),
    ExistsContext,
    NotFound(String),
    NotAContext(String),
    NotEmpty,
}

/// The names that there are: objects by their path, none for a context.
#[derive(Default)]
struct Model(BTreeMap<String, Option<Uid>>);

impl Model {
    /// Goes down to the context above the last part.
    fn parents(&mut self, parts: &[&str], make: bool) -> Result<(), Answer> {
        for depth in 1..parts.len() {
            let path = parts[..depth].join("/");
            match self.0.get(&path) {
                Some(None) => {}
                Some(Some(_)) => return Err(Answer::NotAContext(path)),
                None if make => drop(self.0.insert(path, None)),
                None => return Err(Answer::NotFound(parts[..depth - 1].join("/"))),
            }
        }
        Ok(())
    }

    fn put(&mut self, parts: &[&str], object: Uid, replace: bool) -> Answer {
        if let Err(answer) = self.parents(parts, true) {
            return answer;
        }
        let path = parts.join("/");
        match self.0.get(&path) {
            Some(None) => return Answer::ExistsContext,
            Some(Some(found)) if !replace => return Answer::Exists(*found),
            Some(Some(_)) | None => {}
        }
        self.0.insert(path, Some(object));
        Answer::Done
    }

    fn lookup(&mut self, parts: &[&str]) -> Answer {
        if let Err(answer) = self.parents(parts, false) {
            return answer;
        }
        match self.0.get(&parts.join("/")) {
            Some(Some(object)) => Answer::Object(*object),
            Some(None) => Answer::Context,
            None => Answer::NotFound(parts[..parts.len() - 1].join("/")),
        }
    }

    fn delete(&mut self, parts: &[&str]) -> Answer {
        match self.lookup(parts) {
            Answer::Object(_) | Answer::Context => {}
            answer => return answer,
        }
        let path = parts.join("/");
        let below = format!("{path}/");
        if self.0.keys().any(|other| other.starts_with(&below)) {
            return Answer::NotEmpty;
        }
        self.0.remove(&path);
        Answer::Done
    }

    fn names_in(&self, path: &str) -> Vec<String> {
        let below = if path.is_empty() {
            String::new()
        } else {
            format!("{path}/")
        };
        let names = self.0.keys().filter_map(|other| other.strip_prefix(&below));
        names
            .filter(|name| !name.contains('/'))
            .map(str::to_owned)
            .collect()
    }
}

/// The service in one life.
struct Service {
    node: Node,
    client: Client,
}

impl Service {
    async fn start(folder: &TempDir) -> Self {
        let builder = Node::builder().data_dir(folder.path()).shards(2);
        let node = partha_naming::start(builder).await.unwrap();
        let client = Client::connect(node.address().to_string()).await.unwrap();
        Self { node, client }
    }

    async fn add(&self, path: &str, object: Uid) -> Answer {
        let naming = self.client.naming().unwrap();
        match naming.add(&self.client, path, object, CLASS).await {
            Ok(()) => Answer::Done,
            Err(AddError::NameExists(e)) => self.exists(path, e.object).await,
            Err(AddError::NameNotFound(e)) => Answer::NotFound(e.found),
            Err(AddError::NotAContext(e)) => Answer::NotAContext(e.part),
            Err(error) => panic!("{error}"),
        }
    }

    async fn rebind(&self, path: &str, object: Uid) -> Answer {
        let naming = self.client.naming().unwrap();
        match naming.rebind(&self.client, path, object, CLASS, &[]).await {
            Ok(()) => Answer::Done,
            Err(RebindError::NameExists(e)) => self.exists(path, e.object).await,
            Err(RebindError::NameNotFound(e)) => Answer::NotFound(e.found),
            Err(RebindError::NotAContext(e)) => Answer::NotAContext(e.part),
            Err(error) => panic!("{error}"),
        }
    }

    /// The answer for a name that is taken by this object, which may be a context.
    async fn exists(&self, path: &str, object: Uid) -> Answer {
        match self.lookup(path).await {
            Answer::Context => Answer::ExistsContext,
            found => {
                assert_eq!(found, Answer::Object(object));
                Answer::Exists(object)
            }
        }
    }

    async fn lookup(&self, path: &str) -> Answer {
        match self
            .client
            .naming()
            .unwrap()
            .service()
            .lookup(&self.client, path)
            .await
        {
            Ok(entry) if entry.context => Answer::Context,
            Ok(entry) => Answer::Object(entry.object),
            Err(LookupError::NameNotFound(e)) => Answer::NotFound(e.found),
            Err(LookupError::NotAContext(e)) => Answer::NotAContext(e.part),
            Err(error) => panic!("{error}"),
        }
    }

    async fn delete(&self, path: &str) -> Answer {
        match self
            .client
            .naming()
            .unwrap()
            .delete(&self.client, path)
            .await
        {
            Ok(()) => Answer::Done,
            Err(DeleteError::NameNotFound(e)) => Answer::NotFound(e.found),
            Err(DeleteError::NotAContext(e)) => Answer::NotAContext(e.part),
            Err(DeleteError::ContextNotEmpty(_)) => Answer::NotEmpty,
            Err(error) => panic!("{error}"),
        }
    }

    async fn check_lists(&self, model: &Model) {
        let contexts = model.0.iter().filter(|(_, object)| object.is_none());
        for path in contexts.map(|(path, _)| path.as_str()).chain([""]) {
            let naming = self.client.naming().unwrap();
            let listed = naming.list(&self.client, path, "", 100).await.unwrap();
            let listed: Vec<_> = listed.into_iter().map(|entry| entry.name).collect();
            assert_eq!(listed, model.names_in(path), "'{path}'");
        }
    }
}

/// xorshift: the same steps for the same seed.
fn next(random: &mut u64) -> u64 {
    *random ^= *random << 13;
    *random ^= *random >> 7;
    *random ^= *random << 17;
    *random >> 8
}

async fn run(seed: u64) {
    let folder = temp_dir("model");
    let mut random = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let (mut model, mut service) = (Model::default(), Service::start(&folder).await);
    for step in 0..STEPS {
        let depth = next(&mut random) % 3 + 1;
        let parts: Vec<_> = (0..depth)
            .map(|_| PARTS[next(&mut random) as usize % 3])
            .collect();
        let (path, object) = (
            parts.join("/"),
            Uid {
                node: NodeId(1),
                local: 100 + u64::from(step),
            },
        );
        let (expected, found) = match next(&mut random) % 10 {
            0..=3 => (
                model.put(&parts, object, false),
                service.add(&path, object).await,
            ),
            4 => (
                model.put(&parts, object, true),
                service.rebind(&path, object).await,
            ),
            5..=7 => (model.delete(&parts), service.delete(&path).await),
            _ => (model.lookup(&parts), service.lookup(&path).await),
        };
        assert_eq!(found, expected, "seed {seed}, step {step}, {path}");
        if step == STEPS / 2 {
            service.check_lists(&model).await;
            service
                .node
                .shutdown(Duration::from_secs(10))
                .await
                .unwrap();
            service = Service::start(&folder).await;
        }
    }
    service.check_lists(&model).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_service_answers_as_the_model_does() {
    for seed in 1..=4 {
        run(seed).await;
    }
}
