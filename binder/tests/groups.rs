//! Views of groups, as their members ask for them: one of two opinions wins, and what was said
//! once is said for good.

#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

mod common;

use common::{System, absent};
use partha::services::binder::binder::{
    ChangeViewError, ChangeViewsError, LocateError, MakeGroupError, SetWantedError, ViewsError,
};
use partha::services::binder::{
    COPIES_MAX, GROUPS_MAX, GroupOrder, GroupPlacement, GroupPolicy, GroupView, Label, MovedObject,
    VIEW_NUMBER_MAX, ViewChange, ViewWish,
};
use partha::{Client, Incarnation, NodeId, Uid};

/// An object that node 1 made.
fn object(counter: u64) -> Uid {
    Uid::new(NodeId(1), Incarnation(1), counter)
}

fn view(object: Uid, number: u64, members: &[u64]) -> GroupView {
    GroupView {
        object,
        class: 7,
        number,
        members: members.to_vec(),
        wanted: 3,
        policy: GroupPolicy::Passive,
        placement: GroupPlacement::default(),
    }
}

/// A change that a node asks for in its first life.
fn change(object: Uid, expected: u64, by: u64, wish: ViewWish) -> ViewChange {
    let incarnation = 1;
    ViewChange {
        object,
        expected,
        by,
        incarnation,
        wish,
    }
}

impl System {
    /// With the nodes 1 to 3, which are not there.
    async fn with_nodes() -> Self {
        let system = Self::start().await;
        for node in 1..=3 {
            system.life(node, 1).await;
        }
        system
    }

    /// A node registers.
    async fn life(&self, node: u64, incarnation: u32) {
        let entry = absent(node, incarnation, &format!("n{node}"));
        let stub = self.stub().await;
        stub.register(&self.client, &entry).await.unwrap();
    }

    async fn make(&self, view: &GroupView) -> Result<GroupView, MakeGroupError> {
        self.stub().await.make_group(&self.client, view).await
    }

    /// What the view is after a change: its number and members.
    async fn change(&self, change: &ViewChange) -> (u64, Vec<u64>) {
        let stub = self.stub().await;
        let view = stub.change_view(&self.client, change).await.unwrap();
        assert_eq!(view.object, change.object);
        (view.number, view.members)
    }

    async fn views(&self, objects: &[Uid]) -> Vec<GroupView> {
        self.stub()
            .await
            .views(&self.client, objects)
            .await
            .unwrap()
    }

    async fn dissolve(&self, object: Uid, expected: u64) -> bool {
        let stub = self.stub().await;
        stub.dissolve(&self.client, object, expected).await.unwrap()
    }

    async fn tell_moved(&self, object: Uid, node: u64, moves: u64) -> u32 {
        let moved = MovedObject {
            object,
            node,
            moves,
        };
        self.stub()
            .await
            .moved(&self.client, &[moved])
            .await
            .unwrap()
    }

    /// The node, whether it is one of a row, and the moves.
    async fn row(&self, object: Uid) -> (u64, bool, u64) {
        let stub = self.stub().await;
        let found = stub.locate(&self.client, object).await.unwrap();
        (found.node.node, found.moved, found.moves)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_is_made_once_and_found_where_its_leader_is() {
    let system = System::with_nodes().await;
    let one = object(100);
    assert_eq!(system.row(one).await, (1, false, 0));
    assert_eq!(system.views(&[one]).await, []);
    let first = view(one, 1, &[2]);
    assert_eq!(system.make(&first).await.unwrap(), first);
    assert_eq!(system.row(one).await, (2, true, 1));
    // Whoever asks again gets what is there, whatever it would like.
    assert_eq!(system.make(&view(one, 1, &[3])).await.unwrap(), first);
    let include = change(one, 1, 2, ViewWish::Include(3));
    assert_eq!(system.change(&include).await, (2, vec![2, 3]));
    let second = GroupView {
        number: 2,
        members: vec![2, 3],
        ..first
    };
    assert_eq!(system.make(&view(one, 1, &[2])).await.unwrap(), second);
    assert_eq!(
        system.views(&[object(7), one, one]).await,
        [second.clone(), second]
    );
    let lead = change(one, 2, 3, ViewWish::Lead);
    assert_eq!(system.change(&lead).await, (3, vec![3]));
    assert_eq!(system.row(one).await, (3, true, 3));
    // A leader that never registered is told of as missing.
    system.make(&view(object(101), 1, &[9])).await.unwrap();
    let stub = system.stub().await;
    let located = stub.locate(&system.client, object(101)).await;
    let Err(LocateError::UnknownNode(error)) = located else {
        panic!("expected UnknownNode, found {located:?}");
    };
    assert_eq!((error.node, error.object), (9, object(101)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_that_is_asked_for_again_is_done_once() {
    let system = System::with_nodes().await;
    let one = object(100);
    system.make(&view(one, 1, &[1, 2, 3])).await.unwrap();
    let exclude = change(one, 1, 1, ViewWish::Exclude(2));
    for _ in 0..3 {
        assert_eq!(system.change(&exclude).await, (2, vec![1, 3]));
    }
    // What is not right leaves the view as it is, and says so.
    for wrong in [
        change(one, 2, 3, ViewWish::Renew),
        change(one, 2, 2, ViewWish::Lead),
        change(one, 2, 1, ViewWish::Lead),
        change(one, 2, 1, ViewWish::Exclude(1)),
        change(one, 2, 1, ViewWish::Include(3)),
        change(one, 2, 1, ViewWish::HandOver(2)),
        change(one, 1, 1, ViewWish::Renew),
        change(one, 3, 1, ViewWish::Renew),
        change(one, u64::MAX, 1, ViewWish::Renew),
    ] {
        assert_eq!(system.change(&wrong).await, (2, vec![1, 3]), "{wrong:?}");
    }
    let hand_over = change(one, 2, 1, ViewWish::HandOver(3));
    assert_eq!(system.change(&hand_over).await, (3, vec![3, 1]));
    let stub = system.stub().await;
    let renew = change(object(7), 1, 1, ViewWish::Renew);
    let refused = stub.change_view(&system.client, &renew).await;
    let Err(ChangeViewError::NoSuchGroup(error)) = refused else {
        panic!("expected NoSuchGroup, found {refused:?}");
    };
    assert_eq!(error.object, object(7));
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_who_ask_at_once_under_one_number_one_wins() {
    let system = System::with_nodes().await;
    // Each over a connection of its own.
    let address = system.client.naming().unwrap().address().unwrap();
    let other = Client::connect(address.to_string()).await.unwrap();
    let [ours, theirs] = [system.stub().await, system.stub().await];
    theirs.views(&other, &[]).await.unwrap();
    for round in 0..40 {
        let one = object(100 + round);
        system.make(&view(one, 1, &[1, 2, 3])).await.unwrap();
        // The leader holds 2 for dead, and 2 the leader.
        let exclude = change(one, 1, 1, ViewWish::Exclude(2));
        let lead = change(one, 1, 2, ViewWish::Lead);
        let (leader, member) = match round % 2 {
            0 => tokio::join!(
                ours.change_view(&system.client, &exclude),
                theirs.change_view(&other, &lead),
            ),
            _ => {
                let (member, leader) = tokio::join!(
                    ours.change_view(&system.client, &lead),
                    theirs.change_view(&other, &exclude),
                );
                (leader, member)
            }
        };
        let (leader, member) = (leader.unwrap(), member.unwrap());
        assert_eq!(leader, member, "both get what is in force");
        let outcomes = [vec![1, 3], vec![2, 3]];
        assert!(outcomes.contains(&leader.members), "{leader:?}");
        assert_eq!(leader.number, 2);
        assert_eq!(system.views(&[one]).await, [leader]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_older_life_of_a_node_changes_nothing() {
    let system = System::with_nodes().await;
    let one = object(100);
    system.make(&view(one, 1, &[1, 2])).await.unwrap();
    let in_life = |incarnation, change| ViewChange {
        incarnation,
        ..change
    };
    // One that has registered is known, and so is one that has asked before it registers.
    system.life(1, 4).await;
    let renew = |expected| change(one, expected, 1, ViewWish::Renew);
    assert_eq!(system.change(&in_life(3, renew(1))).await, (1, vec![1, 2]));
    assert_eq!(system.change(&in_life(5, renew(1))).await, (2, vec![1, 2]));
    assert_eq!(system.change(&in_life(4, renew(2))).await, (2, vec![1, 2]));
    // It is heard of also where it has nothing right to ask.
    assert_eq!(system.change(&in_life(6, renew(9))).await, (2, vec![1, 2]));
    assert_eq!(system.change(&in_life(5, renew(2))).await, (2, vec![1, 2]));
    let system = system.stop_binder().await.start().await;
    assert_eq!(system.change(&in_life(5, renew(2))).await, (2, vec![1, 2]));
    assert_eq!(system.change(&in_life(6, renew(2))).await, (3, vec![1, 2]));
    // Who is no member is not heard at all, so that it can keep nobody out.
    let stranger = change(one, 3, 3, ViewWish::Lead);
    let ask = in_life(u32::MAX, stranger);
    assert_eq!(system.change(&ask).await, (3, vec![1, 2]));
    let include = in_life(6, change(one, 3, 1, ViewWish::Include(3)));
    assert_eq!(system.change(&include).await, (4, vec![1, 2, 3]));
    let lead = change(one, 4, 3, ViewWish::Lead);
    assert_eq!(system.change(&lead).await, (5, vec![3, 2]));
}

#[tokio::test(flavor = "multi_thread")]
async fn many_change_in_one_call_one_after_the_other() {
    let system = System::with_nodes().await;
    let stub = system.stub().await;
    let (a, b, none) = (object(100), object(101), object(102));
    system.make(&view(a, 1, &[1, 2])).await.unwrap();
    system.make(&view(b, 1, &[2, 1])).await.unwrap();
    let changes = [
        change(a, 1, 1, ViewWish::Exclude(2)),
        change(none, 1, 1, ViewWish::Renew),
        change(b, 1, 1, ViewWish::Lead),
        change(a, 2, 1, ViewWish::Include(3)),
        change(a, 2, 1, ViewWish::Include(2)),
    ];
    for attempt in 0..2 {
        let answer = stub.change_views(&system.client, &changes).await.unwrap();
        let seen: Vec<_> = answer.iter().map(|it| (it.object, it.number)).collect();
        let first = if attempt == 0 { 2 } else { 3 };
        assert_eq!(seen, [(a, first), (b, 2), (a, 3), (a, 3)]);
        assert_eq!(answer[3].members, [1, 3]);
        assert_eq!(answer[1].members, [1]);
    }

    let many: Vec<_> = (0..=GROUPS_MAX as u64)
        .map(|n| change(object(100 + n), 3, 1, ViewWish::Renew))
        .collect();
    let refused = stub.change_views(&system.client, &many).await;
    let Err(ChangeViewsError::TooManyGroups(error)) = refused else {
        panic!("expected TooManyGroups, found {refused:?}");
    };
    assert_eq!(error.limit as usize, GROUPS_MAX);
    assert_eq!(system.views(&[a]).await[0].number, 3, "nothing is done");
    let answer = stub.change_views(&system.client, &many[..GROUPS_MAX]).await;
    let answer = answer.unwrap();
    assert_eq!(answer.len(), 2);
    assert_eq!((answer[0].number, answer[1].number), (4, 2));
    let many: Vec<_> = many.iter().map(|change| change.object).collect();
    let refused = stub.views(&system.client, &many).await;
    assert!(matches!(refused, Err(ViewsError::TooManyGroups(_))));
    assert_eq!(system.views(&many[..GROUPS_MAX]).await.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn groups_are_listed_page_by_page_and_outlive_the_binder() {
    let system = System::with_nodes().await;
    for counter in [104, 100, 102, 101, 103] {
        system
            .make(&view(object(counter), 1, &[1, 2]))
            .await
            .unwrap();
    }
    let renew = change(object(102), 1, 1, ViewWish::Renew);
    assert_eq!(system.change(&renew).await.0, 2);
    let system = system.stop_binder().await.start().await;
    let stub = system.stub().await;
    let (mut seen, mut after) = (Vec::new(), Uid::NIL);
    loop {
        let page = stub.groups(&system.client, after, 2).await.unwrap();
        let Some(last) = page.last() else { break };
        assert!(page.len() <= 2);
        after = last.object;
        seen.extend(page.into_iter().map(|it| (it.object.counter(), it.number)));
    }
    assert_eq!(seen, [(100, 1), (101, 1), (102, 2), (103, 1), (104, 1)]);
    // A leader that comes back asks under the number that was in force.
    let lead = change(object(102), 2, 2, ViewWish::Lead);
    assert_eq!(system.change(&lead).await, (3, vec![2]));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_no_group_can_be_is_refused() {
    let system = System::with_nodes().await;
    let one = object(100);
    let crowd: Vec<_> = (1..=COPIES_MAX as u64 + 1).collect();
    let wanted = |wanted| GroupView {
        wanted,
        ..view(one, 1, &[1])
    };
    for wrong in [
        view(one, 0, &[1]),
        view(one, VIEW_NUMBER_MAX + 1, &[1]),
        view(one, u64::MAX, &[1]),
        view(one, 1, &[]),
        view(one, 1, &crowd),
        view(one, 1, &[1, 2, 1]),
        view(one, 1, &[0]),
        view(Uid::NIL, 1, &[1]),
        view(Uid::NAMING_ROOT, 1, &[1]),
        view(Uid::connection_manager(NodeId(1)), 1, &[1]),
        wanted(0),
        wanted(u16::MAX),
    ] {
        let refused = system.make(&wrong).await;
        let Err(MakeGroupError::BadGroup(error)) = refused else {
            panic!("expected BadGroup, found {refused:?} for {wrong:?}");
        };
        assert!(error.object == wrong.object && !error.reason.is_empty());
    }
    assert_eq!(system.views(&[one, Uid::NIL]).await, []);

    // Full is full, and the last number is the last.
    system
        .make(&view(one, 1, &crowd[..COPIES_MAX]))
        .await
        .unwrap();
    let include = change(one, 1, 1, ViewWish::Include(crowd[COPIES_MAX]));
    assert_eq!(system.change(&include).await.0, 1);
    let last = view(object(101), VIEW_NUMBER_MAX, &[1]);
    system.make(&last).await.unwrap();
    let renew = change(object(101), VIEW_NUMBER_MAX, 1, ViewWish::Renew);
    assert_eq!(system.change(&renew).await.0, VIEW_NUMBER_MAX);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_number_of_wanted_copies_can_be_changed() {
    let system = System::with_nodes().await;
    let one = object(100);
    system.make(&view(one, 1, &[1, 2])).await.unwrap();
    let stub = system.stub().await;
    let east = GroupPlacement {
        order: GroupOrder::Pack,
        on: vec!["zone=east".parse().unwrap()],
    };
    let placed = stub.set_wanted(&system.client, one, 4, Some(&east)).await;
    assert_eq!(placed.unwrap().placement, east);
    let view = stub.set_wanted(&system.client, one, 5, None).await.unwrap();
    assert_eq!((view.wanted, view.number), (5, 1));
    assert_eq!(view.placement, east, "it stays");
    assert_eq!(system.views(&[one]).await, [view]);
    for wrong in [0, COPIES_MAX as u16 + 1] {
        let refused = stub.set_wanted(&system.client, one, wrong, None).await;
        assert!(matches!(refused, Err(SetWantedError::BadGroup(_))));
    }
    let nowhere = GroupPlacement {
        on: vec![Label {
            name: "zone".to_owned(),
            value: String::new(),
        }],
        ..east
    };
    let refused = stub
        .set_wanted(&system.client, one, 5, Some(&nowhere))
        .await;
    assert!(matches!(refused, Err(SetWantedError::BadGroup(_))));
    let refused = stub.set_wanted(&system.client, object(7), 2, None).await;
    assert!(matches!(refused, Err(SetWantedError::NoSuchGroup(_))));
    // It stays when members change.
    let exclude = change(one, 1, 1, ViewWish::Exclude(2));
    system.change(&exclude).await;
    assert_eq!(system.views(&[one]).await[0].wanted, 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn numbers_only_grow_from_moves_to_views_to_moves() {
    let system = System::with_nodes().await;
    let one = object(100);
    assert_eq!(system.tell_moved(one, 2, 7).await, 1);
    let refused = system.make(&view(one, 7, &[2])).await;
    let Err(MakeGroupError::OldView(error)) = refused else {
        panic!("expected OldView, found {refused:?}");
    };
    assert_eq!((error.object, error.known), (one, 7));
    system.make(&view(one, 8, &[2])).await.unwrap();
    assert_eq!(system.row(one).await, (2, true, 8));
    // News of moves before it was a group are none.
    assert_eq!(system.tell_moved(one, 3, 7).await, 0);
    assert_eq!(system.row(one).await, (2, true, 8));
    let include = change(one, 8, 2, ViewWish::Include(3));
    assert_eq!(system.change(&include).await, (9, vec![2, 3]));
    let lead = change(one, 9, 3, ViewWish::Lead);
    assert_eq!(system.change(&lead).await, (10, vec![3]));

    assert!(!system.dissolve(one, 9).await, "another number");
    assert!(system.dissolve(one, 10).await);
    assert!(system.dissolve(one, 10).await, "asked again");
    assert_eq!(system.views(&[one]).await, []);
    assert_eq!(system.row(one).await, (3, true, 10));
    // What made the group does not make it again when it comes late.
    let late = system.make(&view(one, 8, &[2])).await;
    assert!(matches!(late, Err(MakeGroupError::OldView(_))), "{late:?}");
    assert_eq!(system.tell_moved(one, 1, 10).await, 0);
    assert_eq!(system.tell_moved(one, 1, 11).await, 1);
    assert_eq!(system.row(one).await, (1, true, 11));
    let system = system.stop_binder().await.start().await;
    assert_eq!(system.row(one).await, (1, true, 11));
    system.make(&view(one, 12, &[1, 2])).await.unwrap();
    assert!(!system.dissolve(one, 12).await, "there is another member");
}

/// Its node ended, or its store failed, after the view was made, and it moved as an object without
/// copies then: whoever looks for it is not to be sent to where it was for ever.
#[tokio::test(flavor = "multi_thread")]
async fn a_group_that_never_was_is_forgotten_when_its_object_moves() {
    let system = System::with_nodes().await;
    let (one, other) = (object(100), object(101));
    system.make(&view(one, 5, &[2])).await.unwrap();
    system.make(&view(other, 5, &[1, 2])).await.unwrap();
    // Before it; at that node; and of one that has members elsewhere.
    assert_eq!(system.tell_moved(one, 3, 4).await, 0);
    assert_eq!(system.tell_moved(one, 2, 5).await, 0);
    assert_eq!(system.tell_moved(other, 3, 5).await, 0);
    assert_eq!(system.row(one).await, (2, true, 5));
    assert_eq!(system.tell_moved(one, 3, 5).await, 1);
    assert_eq!(system.views(&[one]).await, []);
    assert_eq!(system.row(one).await, (3, true, 5));
    system.make(&view(one, 6, &[3])).await.unwrap();
    assert_eq!(system.views(&[other]).await.len(), 1);
}

/// As above, and the object is given copies where it is now before the binder has heard of the
/// move.
#[tokio::test(flavor = "multi_thread")]
async fn a_group_that_never_was_gives_way_to_the_one_that_is_made() {
    let system = System::with_nodes().await;
    let (one, other) = (object(100), object(101));
    system.make(&view(one, 5, &[2])).await.unwrap();
    system.make(&view(other, 5, &[1, 2])).await.unwrap();
    // Not newer; and of one that has members elsewhere.
    let stays = [
        (view(one, 5, &[3]), view(one, 5, &[2])),
        (view(other, 6, &[3]), view(other, 5, &[1, 2])),
    ];
    for (asked, known) in stays {
        assert_eq!(system.make(&asked).await.unwrap(), known, "{asked:?}");
    }
    let newer = view(one, 6, &[3]);
    assert_eq!(system.make(&newer).await.unwrap(), newer);
    assert_eq!(system.views(&[one]).await, [newer]);
    assert_eq!(system.row(one).await, (3, true, 6));
    // It has been away and is back at the same node; then late news of that come, of no effect.
    let back = view(one, 8, &[3]);
    assert_eq!(system.make(&back).await.unwrap(), back);
    assert_eq!(system.tell_moved(one, 2, 7).await, 0);
    assert_eq!(system.views(&[one]).await, [back]);
}
