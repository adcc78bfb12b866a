/**
 * The baseline of bench `embed`: the same server and answers, the search on the main thread.
 *
 * The same kernel scans one dense array of cells, with nothing else around it: the fastest form that the main thread has.
 */
import fastify, { type FastifyInstance } from "fastify";
import { Arena, createArena } from "../../native-bridge/arena.ts";
import { CELL_HEADER_BYTES, USER0, USER4 } from "../../native-bridge/cell-layout.ts";
import { compileKernels, ELEMENT, Kernels, METRIC } from "../../native-bridge/kernels.ts";
import { DIMENSIONS, idOf, NEIGHBOURS } from "./embed-data.ts";

const STRIDE = CELL_HEADER_BYTES + DIMENSIONS * 4;

export function createBaselineServer(vectors: Float32Array): FastifyInstance {
  const rows = vectors.length / DIMENSIONS;
  const arena = new Arena(createArena({ capacityBytes: 256 * 1024 * 1024 }));
  const kernels = new Kernels(compileKernels(), arena);
  const cells = arena.allocate(rows * STRIDE);
  for (let row = 0; row < rows; row++) {
    const cell = cells + row * STRIDE;
    arena.f32.set(vectors.subarray(row * DIMENSIONS, (row + 1) * DIMENSIONS), (cell + CELL_HEADER_BYTES) >>> 2);
    arena.i32[(cell >>> 2) + USER0] = 1; // in use
    arena.f32[(cell >>> 2) + USER4] = kernels.inverseNorm(ELEMENT.F32, cell + CELL_HEADER_BYTES, DIMENSIONS);
  }
  const app = fastify();
  app.get<{ Params: { id: string } }>("/similar/:id", (request, reply) => {
    const row = Number(request.params.id.slice(1));
    if (!(row >= 0 && row < rows)) return reply.code(404).send({ error: `no document ${request.params.id}` });
    kernels.beginScan(
      METRIC.COSINE,
      ELEMENT.F32,
      vectors.subarray(row * DIMENSIONS, (row + 1) * DIMENSIONS),
      NEIGHBOURS,
    );
    kernels.scanCells(cells, STRIDE, 0, rows);
    const count = kernels.endScan();
    return reply.send(
      Array.from({ length: count }, (_, hit) => ({ id: idOf(kernels.hitRow(hit)), score: kernels.hitDistance(hit) })),
    );
  });
  return app;
}
