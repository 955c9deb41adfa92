//! Claiming: single decisions case by case, and the whole protocol over every interleaving.

mod cases;
mod model;
