/** Gives fast-check the seed of the run, so that a property that failed is repeated by `SEED=…`. */
import fc from "fast-check";

fc.configureGlobal({ seed: Number(process.env["SEED"] ?? 1) });
