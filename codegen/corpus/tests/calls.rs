//! Calls of a transient object in this process: every kind of parameter and result through stub
//! and skeleton.

use std::collections::BTreeMap;
use std::time::Duration;

use codegen_corpus::echo::echo::{self, RaiseError, RaiseOnlyError, RaiseOrMaybeError};
use codegen_corpus::echo::{Broken, Colour, Echo, Figure, Louder, Point, Refused, Thing, louder};
use partha::{Bytes, Client, Context, NodeId, Result, Timestamp, Uid};

struct Servant;

/// The methods that answer what they were given, of each class that has them.
macro_rules! same {
    ($($name:ident: $type:ty;)*) => {$(
        async fn $name(&self, _cx: &Context, value: $type) -> Result<$type> {
            Ok(value)
        }
    )*};
}

macro_rules! echoes {
    () => {
        async fn nothing(&self, _cx: &Context) -> Result<()> {
            Ok(())
        }

        async fn small(&self, _cx: &Context, a: i8, b: u8, c: i16, d: u16) -> Result<i32> {
            Ok(i32::from(a) + i32::from(b) * 2 + i32::from(c) * 3 + i32::from(d) * 5)
        }

        async fn float(&self, _cx: &Context, list: f32, index: f64) -> Result<f64> {
            Ok(f64::from(list) + index)
        }

        async fn colours(
            &self,
            _cx: &Context,
            colours: Vec<Colour>,
            moments: Vec<Timestamp>,
            spans: Vec<Duration>,
        ) -> Result<Vec<Colour>> {
            assert_eq!((moments.len(), spans.len()), (colours.len(), colours.len()));
            Ok(colours)
        }

        async fn maybe_moment(
            &self,
            _cx: &Context,
            value: Option<Timestamp>,
            until: Option<Duration>,
        ) -> Result<Option<Timestamp>> {
            assert_eq!(value.is_some(), until.is_none());
            Ok(value)
        }

        same! {
            truth: bool;
            number: i64;
            text: String;
            data: Bytes;
            identity: Uid;
            moment: Timestamp;
            span: Duration;
            colour: Colour;
            figure: Figure;
            point: Point;
            thing: Thing;
            points: Vec<Point>;
            matrix: Vec<Vec<f32>>;
            things: Vec<Thing>;
            uids: Vec<Uid>;
            holes: Vec<Option<i16>>;
            gaps: Vec<Option<String>>;
            table: BTreeMap<String, Point>;
            sparse: BTreeMap<u16, Option<bool>>;
            nested: BTreeMap<Colour, BTreeMap<Uid, Vec<Bytes>>>;
            maybe_number: Option<i64>;
            maybe_truth: Option<bool>;
            maybe_colour: Option<Colour>;
            maybe_text: Option<String>;
            maybe_data: Option<Bytes>;
            maybe_point: Option<Point>;
            maybe_points: Option<Vec<Point>>;
            maybe_thing: Option<Thing>;
            again: Echo;
            maybe_again: Option<Echo>;
            again_all: Vec<Echo>;
        }

        async fn raise(&self, _cx: &Context, which: u8) -> Result<i64, RaiseError> {
            match which {
                0 => Ok(7),
                1 => Err(Refused {
                    reason: "no".to_owned(),
                    code: Some(0),
                }
                .into()),
                _ => Err(Broken { at: POINT }.into()),
            }
        }

        async fn raise_only(&self, _cx: &Context, which: u8) -> Result<(), RaiseOnlyError> {
            match which {
                0 => Ok(()),
                _ => Err(Refused {
                    reason: String::new(),
                    code: None,
                }
                .into()),
            }
        }

        async fn raise_or_maybe(
            &self,
            _cx: &Context,
            which: u8,
        ) -> Result<Option<i64>, RaiseOrMaybeError> {
            match which {
                0 => Ok(None),
                1 => Ok(Some(-1)),
                _ => Err(Broken { at: POINT }.into()),
            }
        }
    };
}

impl echo::Servant for Servant {
    echoes!();
}

impl louder::Servant for Servant {
    echoes!();

    async fn shout(&self, _cx: &Context, text: String) -> Result<String> {
        Ok(text.to_uppercase())
    }
}

const POINT: Point = Point { x: -1, y: i32::MAX };

fn uid(local: u64) -> Uid {
    Uid {
        node: NodeId(3),
        local,
    }
}

fn client() -> Client {
    Client::alone().expect("a client without a network")
}

#[tokio::test]
async fn scalars_and_texts_are_what_they_were() -> Result<()> {
    let client = client();
    let echo = Echo::serve(&client, Servant)?;
    echo.nothing(&client).await?;
    assert!(echo.truth(&client, true).await?);
    assert!(!echo.truth(&client, false).await?);
    assert_eq!(
        echo.small(&client, -1, 255, -300, 65535).await?,
        -1 + 510 - 900 + 327_675
    );
    assert_eq!(echo.number(&client, i64::MIN).await?, i64::MIN);
    assert_eq!(echo.float(&client, 0.5, 1e300).await?, 0.5 + 1e300);
    assert_eq!(echo.text(&client, "grüße").await?, "grüße");
    assert_eq!(echo.data(&client, vec![0, 255]).await?, [0, 255][..]);
    assert_eq!(echo.identity(&client, uid(9)).await?, uid(9));
    let moment = Timestamp::from_micros(-7);
    assert_eq!(echo.moment(&client, moment).await?, moment);
    let span = Duration::from_micros(1_500_000);
    assert_eq!(echo.span(&client, span).await?, span);
    assert_eq!(echo.colour(&client, Colour::Blue).await?, Colour::Blue);
    assert_eq!(echo.point(&client, &POINT).await?, POINT);
    let thing = Thing::from_uid(uid(4));
    assert_eq!(echo.thing(&client, &thing).await?, thing);
    Ok(())
}

#[tokio::test]
async fn unions_lists_and_maps_are_what_they_were() -> Result<()> {
    let client = client();
    let echo = Echo::serve(&client, Servant)?;
    for figure in [
        Figure::None,
        Figure::Circle(2.5),
        Figure::Label(None),
        Figure::Label(Some(String::new())),
        Figure::Mark(None),
        Figure::Mark(Some(-2)),
        Figure::Point(POINT),
    ] {
        assert_eq!(echo.figure(&client, &figure).await?, figure);
    }
    let points = [POINT, Point::default()];
    assert_eq!(echo.points(&client, &points).await?, points);
    let matrix = [vec![1.0, -0.5], vec![], vec![f32::MAX]];
    assert_eq!(echo.matrix(&client, &matrix).await?, matrix);
    let things = [Thing::from_uid(uid(4)), Thing::from_uid(uid(5))];
    assert_eq!(echo.things(&client, &things).await?, things);
    let colours = [Colour::Green, Colour::Red];
    let (moments, spans) = ([Timestamp::default(); 2], [Duration::MAX, Duration::ZERO]);
    assert_eq!(
        echo.colours(&client, &colours, &moments, &spans).await?,
        colours
    );
    assert_eq!(
        echo.uids(&client, &[uid(1), uid(2)]).await?,
        [uid(1), uid(2)]
    );
    let holes = [None, Some(0), Some(-5)];
    assert_eq!(echo.holes(&client, &holes).await?, holes);
    let gaps = [None, Some(String::new()), Some("x".to_owned())];
    assert_eq!(echo.gaps(&client, &gaps).await?, gaps);
    let table = BTreeMap::from([("b".to_owned(), POINT), ("a".to_owned(), Point::default())]);
    assert_eq!(echo.table(&client, &table).await?, table);
    let sparse = BTreeMap::from([(1, None), (2, Some(false)), (3, Some(true))]);
    assert_eq!(echo.sparse(&client, &sparse).await?, sparse);
    let inner = BTreeMap::from([(uid(1), vec![Bytes::from_static(b"\0x")]), (uid(2), vec![])]);
    let nested = BTreeMap::from([(Colour::Red, inner), (Colour::Blue, BTreeMap::new())]);
    assert_eq!(echo.nested(&client, &nested).await?, nested);
    Ok(())
}

#[tokio::test]
async fn what_is_absent_stays_absent() -> Result<()> {
    let client = client();
    let echo = Echo::serve(&client, Servant)?;
    for value in [None, Some(0), Some(-9)] {
        assert_eq!(echo.maybe_number(&client, value).await?, value);
    }
    for value in [None, Some(false), Some(true)] {
        assert_eq!(echo.maybe_truth(&client, value).await?, value);
    }
    for value in [None, Some(Colour::Red), Some(Colour::Blue)] {
        assert_eq!(echo.maybe_colour(&client, value).await?, value);
    }
    for value in [None, Some(""), Some("x")] {
        assert_eq!(echo.maybe_text(&client, value).await?.as_deref(), value);
    }
    for value in [None, Some(&[][..]), Some(&[1][..])] {
        let sent = value.map(Bytes::copy_from_slice);
        assert_eq!(echo.maybe_data(&client, sent).await?.as_deref(), value);
    }
    for value in [None, Some(&Point::default()), Some(&POINT)] {
        assert_eq!(echo.maybe_point(&client, value).await?.as_ref(), value);
    }
    for value in [None, Some(&[][..]), Some(&[POINT][..])] {
        assert_eq!(echo.maybe_points(&client, value).await?.as_deref(), value);
    }
    let thing = Thing::from_uid(uid(4));
    for value in [None, Some(&thing)] {
        assert_eq!(echo.maybe_thing(&client, value).await?.as_ref(), value);
    }
    let moment = Timestamp::from_micros(1);
    assert_eq!(
        echo.maybe_moment(&client, Some(moment), None).await?,
        Some(moment)
    );
    assert_eq!(
        echo.maybe_moment(&client, None, Some(Duration::ZERO))
            .await?,
        None
    );
    Ok(())
}

#[tokio::test]
async fn capabilities_come_back_as_what_they_stand_for() -> Result<()> {
    let client = client();
    let echo = Echo::serve(&client, Servant)?;
    let other = Echo::serve(&client, Servant)?;
    let back = echo.again(&client, &other).await?;
    assert_eq!(back.text(&client, "through").await?, "through");
    assert_eq!(echo.maybe_again(&client, None).await?, None);
    let back = echo
        .maybe_again(&client, Some(&other))
        .await?
        .expect("it was given");
    back.nothing(&client).await?;
    let all = echo
        .again_all(&client, &[echo.clone(), other.clone(), back])
        .await?;
    assert_eq!(all.len(), 3);
    all[1].nothing(&client).await
}

#[tokio::test]
async fn exceptions_are_values_with_texts() -> Result<()> {
    let client = client();
    let echo = Echo::serve(&client, Servant)?;
    assert_eq!(echo.raise(&client, 0).await, Ok(7));
    let refused = Refused {
        reason: "no".to_owned(),
        code: Some(0),
    };
    let error = echo.raise(&client, 1).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "echo.Refused: reason \"no\", code Some(0)"
    );
    assert_eq!(error, RaiseError::Refused(refused));
    assert_eq!(
        echo.raise(&client, 2).await,
        Err(Broken { at: POINT }.into())
    );
    assert_eq!(echo.raise_only(&client, 0).await, Ok(()));
    let refused = Refused {
        reason: String::new(),
        code: None,
    };
    assert_eq!(echo.raise_only(&client, 1).await, Err(refused.into()));
    assert_eq!(echo.raise_or_maybe(&client, 0).await, Ok(None));
    assert_eq!(echo.raise_or_maybe(&client, 1).await, Ok(Some(-1)));
    assert_eq!(
        echo.raise_or_maybe(&client, 2).await,
        Err(Broken { at: POINT }.into())
    );
    Ok(())
}

#[tokio::test]
async fn a_derived_object_is_one_of_its_base() -> Result<()> {
    let client = client();
    let louder = Louder::serve(&client, Servant)?;
    assert_eq!(louder.shout(&client, "ho").await?, "HO");
    assert_eq!(louder.text(&client, "inherited").await?, "inherited");
    let error: RaiseError = louder.raise(&client, 2).await.unwrap_err();
    assert_eq!(error, Broken { at: POINT }.into());
    let base = Echo::from(louder);
    assert_eq!(
        base.text(&client, "by the base's stub").await?,
        "by the base's stub"
    );
    Ok(())
}

#[test]
fn stubs_and_their_futures_cross_threads() {
    fn crosses<T: Send + Sync + Clone + 'static>() {}
    fn is_send(_: &impl Send) {}
    crosses::<Echo>();
    crosses::<Thing>();
    crosses::<RaiseError>();
    let client = client();
    let thing = Thing::from_uid(uid(1));
    let echo = Echo::serve(&client, Servant).unwrap();
    is_send(&echo.thing(&client, &thing));
    is_send(&echo.raise_or_maybe(&client, 1));
    is_send(&Thing::bind(&client, "/nowhere"));
}
