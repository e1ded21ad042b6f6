//! The service `bench.Echo`: what comes goes back.

use std::{
    convert::Infallible,
    net::{Ipv4Addr, SocketAddr},
    task::{Context, Poll},
};

use bytes::Bytes;
use tonic::{
    Request, Response, Status,
    body::Body,
    codegen::{BoxFuture, Service, http},
    server::{Grpc, UnaryService},
    transport::Server,
};
use tonic_prost::ProstCodec;

/// The only method.
pub const PATH: &str = "/bench.Echo/Echo";

/// What is called with, and answered.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Message {
    #[prost(bytes = "bytes", tag = "1")]
    pub payload: Bytes,
}

/// Answers on all cores until the process is ended.
pub fn serve(port: u16) -> Result<(), String> {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(|error| error.to_string())?;
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    // Without a router: there is one method, and gRPC is to look as good as it can.
    runtime.block_on(Server::builder().serve(address, Echo)).map_err(|error| format!("port {port}: {error}"))
}

#[derive(Debug, Clone, Copy)]
struct Echo;

impl Service<http::Request<Body>> for Echo {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Self::Error>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        Box::pin(async move {
            if request.uri().path() != PATH {
                return Ok(Status::unimplemented("there is no such method").into_http());
            }
            let codec = ProstCodec::<Message, Message>::default();
            Ok(Grpc::new(codec).unary(Method, request).await)
        })
    }
}

struct Method;

impl UnaryService<Message> for Method {
    type Response = Message;
    type Future = std::future::Ready<Result<Response<Message>, Status>>;

    fn call(&mut self, request: Request<Message>) -> Self::Future {
        std::future::ready(Ok(Response::new(request.into_inner())))
    }
}
