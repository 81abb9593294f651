//! What only the store in memory has: restarts, held commits, failures.

use super::*;
use crate::Item;

const UID: Uid = Uid {
    node: NodeId(1),
    local: 1,
};

fn create(state: &'static str) -> Batch {
    let record = Record {
        class: ClassId(1),
        schema: 1,
        version: 1,
        epoch: Epoch(1),
        state: Bytes::from_static(state.as_bytes()),
    };
    Item::Create { uid: UID, record }.into()
}

#[test]
fn a_restart_keeps_what_was_committed_and_cuts_off_the_old_store() {
    let old = MemoryStore::with_node(NodeId(5));
    old.commit(create("one")).unwrap();
    old.hold();
    let (sender, receiver) = std::sync::mpsc::channel();
    let delete = Batch::from(Item::Delete { uid: UID });
    old.submit(delete, Box::new(move |result| sender.send(result).unwrap()));
    let new = old.restart();
    assert!(matches!(receiver.recv().unwrap(), Err(StoreError::Closed)));
    assert!(matches!(old.read_state(UID), Err(StoreError::Closed)));
    let incarnation = Incarnation(2);
    assert_eq!(
        new.identity(),
        Peer {
            node: NodeId(5),
            incarnation
        }
    );
    let (record, epoch) = new.activate(UID).unwrap().unwrap();
    assert_eq!(record.state, "one");
    assert_eq!(epoch, Epoch::new(incarnation, 1));
    drop(old);
    new.commit(Item::Delete { uid: UID }.into()).unwrap();
    assert_eq!(new.restart().read_state(UID).unwrap(), None);
}

#[test]
fn commits_can_be_held_back_and_failed() {
    let store = MemoryStore::new();
    store.hold();
    let (sender, receiver) = std::sync::mpsc::channel();
    store.submit(
        create("one"),
        Box::new(move |result| sender.send(result).unwrap()),
    );
    assert_eq!(store.read_state(UID).unwrap(), None);
    assert!(receiver.try_recv().is_err());
    store.release();
    receiver.recv().unwrap().unwrap();

    let full = StoreError::Full {
        path: "somewhere".into(),
        free_bytes: 0,
    };
    store.fail_next([full]);
    let failed = store.commit(Item::Delete { uid: UID }.into());
    assert!(matches!(failed, Err(StoreError::Full { .. })));
    assert_eq!(store.read_state(UID).unwrap().unwrap().state, "one");
    store.commit(Item::Delete { uid: UID }.into()).unwrap();
}

#[test]
fn damage_is_noticed() {
    let store = MemoryStore::new();
    assert!(!store.damage_state(UID));
    store.commit(create("one")).unwrap();
    assert!(store.damage_state(UID));
    assert!(matches!(
        store.read_state(UID),
        Err(StoreError::Corrupt { .. })
    ));
}
