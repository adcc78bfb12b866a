import { describe, expect, it } from "vitest";
import { createSearchServer } from "./search-server.ts";

describe("a server that embeds a cluster", () => {
  it("answers over HTTP and closes with its cluster", async () => {
    const documents = Array.from({ length: 500 }, (_, at) => ({
      id: `d${at}`,
      vector: Float32Array.of(Math.cos(at / 100), Math.sin(at / 100), 0.1),
    }));
    const app = await createSearchServer({ documents, dimensions: 3 });
    const base = await app.listen({ port: 0, host: "127.0.0.1" });
    try {
      const answer = async (path: string): Promise<unknown> => (await fetch(base + path)).json();
      const hits = (await answer("/similar/d100?k=3")) as { id: string; score: number }[];
      expect(hits[0]).toEqual({ id: "d100", score: expect.closeTo(0, 5) });
      expect(hits.map((hit) => hit.id).sort()).toEqual(["d100", "d101", "d99"]);
      const many = await Promise.all(Array.from({ length: 25 }, (_, at) => answer(`/similar/d${at}?k=1`)));
      expect(many.map((entry) => (entry as { id: string }[])[0]?.id)).toEqual(
        Array.from({ length: 25 }, (_, at) => `d${at}`),
      );
      expect((await fetch(`${base}/similar/nobody`)).status).toBe(404);
      expect((await fetch(`${base}/similar/d1?k=0`)).status).toBe(500);
    } finally {
      await app.close();
    }
    await expect(fetch(`${base}/similar/d1`)).rejects.toThrow();
  });
});
