//! tonic over HTTP/2: what its generator would write for two methods, by hand, since that needs
//! the protoc program.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::net::SocketAddr;
use std::task::{Context, Poll};

use anyhow::Context as _;
use bytes::Bytes;
use tokio::net::TcpListener;
use tonic::body::Body;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::codegen::{BoxFuture, Service, http};
use tonic::server::{Grpc, UnaryService};
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Response, Status};
use tonic_prost::ProstCodec;

use crate::network::load::{self, Caller, Connector};

const CALL: &str = "/bench.Null/Call";
const ECHO: &str = "/bench.Null/Echo";

/// Windows of HTTP/2's flow control, of a stream and of a connection: so much is sent before the
/// other end has to ask for more. tonic's own are 64 KiB, less than the largest echo.
const WINDOW_BYTES: u32 = 16 << 20;

#[derive(Clone, PartialEq, prost::Message)]
struct Number {
    #[prost(uint64, tag = "1")]
    n: u64,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Payload {
    #[prost(bytes = "bytes", tag = "1")]
    data: Bytes,
}

/// Answers every message with itself.
struct Mirror;

impl<M: Send + 'static> UnaryService<M> for Mirror {
    type Response = M;
    type Future = Ready<Result<Response<M>, Status>>;

    fn call(&mut self, request: Request<M>) -> Self::Future {
        ready(Ok(Response::new(request.into_inner())))
    }
}

#[derive(Clone)]
struct Server;

impl Service<http::Request<Body>> for Server {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Infallible>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        Box::pin(async move {
            Ok(match request.uri().path() {
                CALL => {
                    let codec = ProstCodec::<Number, Number>::default();
                    Grpc::new(codec).unary(Mirror, request).await
                }
                ECHO => {
                    let codec = ProstCodec::<Payload, Payload>::default();
                    Grpc::new(codec).unary(Mirror, request).await
                }
                other => Status::unimplemented(other).into_http(),
            })
        })
    }
}

/// Serves all who connect, for ever.
pub(crate) async fn serve(listener: TcpListener) -> anyhow::Result<()> {
    // The server's own setting of it does not reach a listener that is handed over.
    let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
    tonic::transport::Server::builder()
        .initial_stream_window_size(WINDOW_BYTES)
        .initial_connection_window_size(WINDOW_BYTES)
        .serve_with_incoming(Server, incoming)
        .await
        .context("the tonic server failed")
}

/// Opens connections.
pub(crate) struct Tonic(pub(crate) SocketAddr);

/// The client end.
pub(crate) struct Client(Channel);

impl Connector for Tonic {
    type Caller = Client;

    async fn connect(&self) -> anyhow::Result<Client> {
        let channel = Endpoint::from_shared(format!("http://{}", self.0))?
            .tcp_nodelay(true)
            .initial_stream_window_size(WINDOW_BYTES)
            .initial_connection_window_size(WINDOW_BYTES)
            .connect()
            .await;
        Ok(Client(channel.context("tonic cannot connect")?))
    }
}

impl Client {
    async fn unary<M>(&self, path: &'static str, message: M) -> anyhow::Result<M>
    where
        M: prost::Message + Default + 'static,
    {
        let mut client = tonic::client::Grpc::new(self.0.clone());
        client.ready().await.context("tonic is not ready")?;
        let (path, codec) = (
            PathAndQuery::from_static(path),
            ProstCodec::<M, M>::default(),
        );
        let answer = client.unary(Request::new(message), path, codec).await;
        Ok(answer.context("tonic call failed")?.into_inner())
    }
}

impl Caller for Client {
    async fn null(&self, n: u64) -> anyhow::Result<u64> {
        Ok(self.unary(CALL, Number { n }).await?.n)
    }

    async fn echo(&self, payload: &Bytes) -> anyhow::Result<()> {
        let data = payload.clone();
        load::compare(payload, &self.unary(ECHO, Payload { data }).await?.data)
    }
}
