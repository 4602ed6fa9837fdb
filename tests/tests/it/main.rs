//! Whole-service tests: the binary as its users run it, over HTTP and over its files; and the rules of the house.

mod rooms;
mod tidy;
mod workspace;
