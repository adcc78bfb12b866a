/** Markdown → passages: what is taken, what is left out, where it is cut. */
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { splitMarkdown } from "../../src/cli/markdown.ts";

const SENTENCE = "Every word of this sentence is here to make a paragraph long enough to be kept as a passage. ";

function textOf(markdown: string): string {
  return splitMarkdown(markdown)
    .map(({ text }) => text)
    .join("\n");
}

describe("splitMarkdown", () => {
  test("gives passages the headings above them", () => {
    const markdown = `# Title\n\n${SENTENCE.repeat(4)}\n\n## Usage\n\n### Options ###\n\n${SENTENCE.repeat(4)}\n\nOther\n-----\n\n${SENTENCE.repeat(4)}`;
    expect(splitMarkdown(markdown).map(({ heading }) => heading)).toEqual([
      "Title",
      "Title › Usage › Options",
      "Title › Other",
    ]);
  });

  test("joins short sections, cuts long paragraphs between sentences", () => {
    expect(splitMarkdown(`# A\n\n${SENTENCE}\n\n# B\n\n${SENTENCE}`)).toHaveLength(1);
    const long = splitMarkdown(SENTENCE.repeat(40));
    expect(long.length).toBeGreaterThan(4);
    for (const { text } of long) expect(text).toMatch(/^Every .* passage\.$/);
  });

  test("leaves out badges, images, addresses, HTML, comments, front matter, links and markup", () => {
    const text = textOf(
      `---\ntitle: x\n---\n<h1 align="center">Head</h1>\n\n[![CI](https://a.example/b.svg)](https://c.example) ![logo][l]\n` +
        `<!-- hidden\nnote -->\n**Bold** and _slanted_ \`code<T>\` [link text](https://d.example/e) at https://f.example/g &amp; more. ${SENTENCE}\n\n[l]: https://h.example`,
    );
    expect(text).toContain("Head");
    expect(text).toContain("Bold and slanted code<T> link text at & more.");
    expect(text).not.toMatch(/example|hidden|title: x|\*\*|\bCI\b|logo/);
  });

  test("keeps the start of code, without taking its lines for headings", () => {
    const code = Array.from({ length: 30 }, (_, line) => `# line ${line} of the code`).join("\n");
    const [passage, ...rest] = splitMarkdown(
      `# Use\n\n${SENTENCE.repeat(2)}\n\n\`\`\`sh\n${code}\n\`\`\`\n\n${SENTENCE.repeat(2)}`,
    );
    expect(rest).toEqual([]);
    expect(passage?.heading).toBe("Use");
    expect(passage?.text).toContain("line 3 of the code");
    expect(passage?.text).not.toContain("line 20 of the code");
  });

  test("leaves out licences and tables of numbers", () => {
    expect(splitMarkdown(`# Tool\n\n## License\n\n${SENTENCE.repeat(5)}`)).toEqual([]);
    expect(splitMarkdown("| 1.00 | 2.00 | 3.00 | 4.00 |\n|---|---|---|---|\n".repeat(20))).toEqual([]);
  });

  test("bounds every passage of any text, and gives the same each time", () => {
    const line = fc.constantFrom(
      "# h",
      "```",
      "~~~",
      "- item",
      "",
      "===",
      "| a | b |",
      "<b>",
      "-->",
      "<!--",
      "[",
      SENTENCE,
      "x".repeat(2000),
    );
    fc.assert(
      fc.property(fc.array(line, { maxLength: 60 }), (lines) => {
        const passages = splitMarkdown(lines.join("\n"));
        for (const { text } of passages) expect(text.length).toBeLessThanOrEqual(701);
        expect(splitMarkdown(lines.join("\n"))).toEqual(passages);
      }),
    );
  });
});
