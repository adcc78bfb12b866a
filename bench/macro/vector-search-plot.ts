/**
 * Plots of bench `vector-search`: recall against rate and against distances as plain SVG, and one HTML page that holds them with the tables.
 *
 * Invariant: what is written needs nothing else: no script, no font, no link. The axis of recall is that of log(1 − recall), as it is the
 * misses that tell good settings apart; that of the cost is logarithmic.
 */
import { mkdirSync, writeFileSync } from "node:fs";
import { dirname } from "node:path";
import type { BenchReport } from "../harness/harness.ts";
import type { Curve, Point } from "./vector-search-curve.ts";

const WIDTH = 1000;
const HEIGHT = 460;
const MARGIN = { left: 76, right: 280, top: 44, bottom: 56 } as const;
const LEGEND_STEP = 18;
/** Told apart by the colour-blind too (Okabe and Ito), in the order of curves. */
const COLOURS = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000"] as const;
/** Dashes of the second turn through the colours. */
const DASHES = ["", "6 4", "2 3"] as const;
const RECALL_TICKS = [0.5, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.998, 0.999, 0.9995] as const;
const FINE_RECALL_TICKS = [
  0.85, 0.9, 0.93, 0.95, 0.97, 0.98, 0.985, 0.99, 0.992, 0.994, 0.996, 0.997, 0.998, 0.9985, 0.999,
] as const;
/** Recalls beyond are drawn here: a truth of some thousand queries cannot tell them from 1. */
const MOST_RECALL = 0.9998;
const COST_STEPS = [1, 2, 5] as const;
const FINE_COST_STEPS = [1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 7, 8] as const;
/** With fewer ticks than this an axis has its fine ones. */
const FEW_TICKS = 4;

interface Chart {
  readonly title: string;
  readonly label: string;
  readonly of: (point: Point) => number | undefined;
}

const CHARTS: readonly Chart[] = [
  { title: "Recall and rate", label: "queries for each second of CPU time", of: ({ qps }) => qps },
  { title: "Recall and work", label: "distances computed a query", of: ({ distances }) => distances },
];

/** Writes the page, and the plots alone beside it. @returns the files */
export function writePlots(html: string, data: string, curves: readonly Curve[], report: BenchReport): string[] {
  const svg = `${html.replace(/\.html?$/, "")}.svg`;
  const drawing = drawCharts(data, curves);
  mkdirSync(dirname(html), { recursive: true });
  writeFileSync(svg, `${drawing}\n`);
  writeFileSync(html, page(data, drawing, report));
  return [html, svg];
}

/** All charts that have curves, one below the other. */
export function drawCharts(data: string, curves: readonly Curve[]): string {
  const charts = CHARTS.map((chart) => drawChart(chart, data, curves)).filter((chart) => chart !== "");
  const height = Math.max(1, charts.length) * HEIGHT;
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${height}" width="${WIDTH}" height="${height}" font-family="sans-serif" font-size="12">`,
    `<rect width="${WIDTH}" height="${height}" fill="#ffffff"/>`,
    ...charts.map((chart, at) => `<g transform="translate(0 ${at * HEIGHT})">\n${chart}\n</g>`),
    "</svg>",
  ].join("\n");
}

const depth = (recall: number): number => -Math.log10(1 - Math.min(MOST_RECALL, Math.max(0, recall)));

function drawChart({ title, label, of }: Chart, data: string, all: readonly Curve[]): string {
  const curves = all
    .map(({ name, points }, colour) => ({
      name,
      colour,
      points: points.filter((point) => (of(point) ?? 0) > 0).sort((a, b) => a.recall - b.recall),
    }))
    .filter(({ points }) => points.length > 0);
  const points = curves.flatMap((curve) => curve.points);
  if (points.length === 0) return "";
  const costs = points.map((point) => of(point) as number);
  const x = scale(
    points.map(({ recall }) => depth(recall)),
    MARGIN.left,
    WIDTH - MARGIN.right,
  );
  const y = scale(costs.map(Math.log10), HEIGHT - MARGIN.bottom, MARGIN.top);
  const lines = curves.map(({ name, colour, points: own }, at) => {
    const stroke = COLOURS[colour % COLOURS.length] as string;
    const dash = DASHES[Math.floor(colour / COLOURS.length) % DASHES.length] as string;
    const places = own.map((point): [number, number] => [x(depth(point.recall)), y(Math.log10(of(point) as number))]);
    const path = places.map(([left, top]) => `${left.toFixed(1)},${top.toFixed(1)}`).join(" ");
    const top = MARGIN.top + 14 + at * LEGEND_STEP;
    const left = WIDTH - MARGIN.right + 14;
    return [
      `<polyline points="${path}" fill="none" stroke="${stroke}" stroke-width="2" stroke-dasharray="${dash}"/>`,
      ...places.map(([cx, cy]) => `<circle cx="${cx.toFixed(1)}" cy="${cy.toFixed(1)}" r="3" fill="${stroke}"/>`),
      `<line x1="${left}" x2="${left + 24}" y1="${top - 4}" y2="${top - 4}" stroke="${stroke}" stroke-width="2" stroke-dasharray="${dash}"/>`,
      `<text x="${left + 30}" y="${top}">${escaped(name)}</text>`,
    ].join("\n");
  });
  return [
    `<text x="${MARGIN.left}" y="24" font-size="15" font-weight="bold">${escaped(`${title}: ${data}`)}</text>`,
    ...recallAxis(x, points),
    ...costAxis(y, costs),
    `<text x="${(WIDTH - MARGIN.right + MARGIN.left) / 2}" y="${HEIGHT - 12}" text-anchor="middle">recall of the ten nearest</text>`,
    `<text transform="translate(16 ${HEIGHT / 2}) rotate(-90)" text-anchor="middle">${escaped(label)}</text>`,
    ...lines,
  ].join("\n");
}

/** Maps the span of the values, and a little more, to [from, to]. */
function scale(values: readonly number[], from: number, to: number): (value: number) => number {
  const least = Math.min(...values);
  const span = Math.max(...values) - least || 1;
  return (value) => from + ((value - least) / span) * (to - from) * 0.94 + (to - from) * 0.03;
}

function recallAxis(x: (value: number) => number, points: readonly Point[]): string[] {
  const bottom = HEIGHT - MARGIN.bottom;
  const shownOf = (ticks: readonly number[]): readonly number[] =>
    ticks.filter((tick) => inside(x(depth(tick)), MARGIN.left, WIDTH - MARGIN.right));
  const coarse = shownOf(RECALL_TICKS);
  const ticks = coarse.length < FEW_TICKS ? shownOf(FINE_RECALL_TICKS) : coarse;
  const shown = ticks.length > 0 ? ticks : [(points[0] as Point).recall];
  return shown.flatMap((tick) => {
    const left = x(depth(tick)).toFixed(1);
    return [
      `<line x1="${left}" x2="${left}" y1="${MARGIN.top}" y2="${bottom}" stroke="#dddddd"/>`,
      `<text x="${left}" y="${bottom + 18}" text-anchor="middle">${Number(tick.toFixed(4))}</text>`,
    ];
  });
}

function costAxis(y: (value: number) => number, costs: readonly number[]): string[] {
  const first = Math.floor(Math.log10(Math.min(...costs)));
  const decades = Math.ceil(Math.log10(Math.max(...costs))) - first + 1;
  const shownOf = (steps: readonly number[]): readonly number[] =>
    Array.from({ length: decades }, (_, at) => steps.map((step) => step * 10 ** (first + at)))
      .flat()
      .filter((tick) => inside(y(Math.log10(tick)), MARGIN.top, HEIGHT - MARGIN.bottom));
  const coarse = shownOf(COST_STEPS);
  return (coarse.length < FEW_TICKS ? shownOf(FINE_COST_STEPS) : coarse).flatMap((tick) => {
    const top = y(Math.log10(tick)).toFixed(1);
    return [
      `<line x1="${MARGIN.left}" x2="${WIDTH - MARGIN.right}" y1="${top}" y2="${top}" stroke="#dddddd"/>`,
      `<text x="${MARGIN.left - 8}" y="${Number(top) + 4}" text-anchor="end">${tick.toLocaleString("en")}</text>`,
    ];
  });
}

function inside(place: number, from: number, to: number): boolean {
  return place >= Math.min(from, to) && place <= Math.max(from, to);
}

function escaped(text: string): string {
  return text.replace(/[&<>"]/g, (sign) => `&#${sign.charCodeAt(0)};`);
}

const STYLE = [
  "body{font-family:sans-serif;margin:24px auto;max-width:1100px;padding:0 16px;color:#1a1a1a;background:#fff}",
  "svg{max-width:100%;height:auto}table{border-collapse:collapse;margin:12px 0;font-size:14px}",
  "th,td{text-align:left;padding:3px 12px 3px 0;border-bottom:1px solid #ddd;vertical-align:top}",
  "td.n{text-align:right;white-space:nowrap;font-variant-numeric:tabular-nums}td.missed{color:#b00020;font-weight:bold}",
].join("");

function page(data: string, drawing: string, { goals, rows, notes }: BenchReport): string {
  const goalRows = goals.map(
    ({ id, what, ratio, sense, limit, ok, note }) =>
      `<tr><td>${escaped(id)}</td><td class="n">${round(ratio)}</td><td class="n">${sense === "max" ? "≤" : "≥"} ${limit}</td>` +
      `<td${ok ? "" : ' class="missed"'}>${ok ? "ok" : "missed"}</td><td>${escaped(what)}</td><td>${escaped(note ?? "")}</td></tr>`,
  );
  const measured = rows.map(
    (row) =>
      `<tr><td>${escaped(row.case)}</td><td>${escaped(row.side)}</td><td class="n">${round(row.median)}</td><td>${escaped(row.unit)}</td><td>${escaped(row.note ?? "")}</td></tr>`,
  );
  return [
    `<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Vector search</title><style>${STYLE}</style></head><body>`,
    `<h1>Vector search</h1><p>${escaped(data)}</p>`,
    drawing,
    "<h2>Goals</h2><table><tr><th>goal</th><th>value</th><th>limit</th><th></th><th>what</th><th></th></tr>",
    ...goalRows,
    "</table><h2>Measured</h2><table><tr><th>case</th><th>side</th><th>median</th><th>unit</th><th></th></tr>",
    ...measured,
    `</table><h2>Notes</h2><ul>${notes.map((note) => `<li>${escaped(note)}</li>`).join("")}</ul></body></html>`,
    "",
  ].join("\n");
}

function round(value: number): string {
  return Number.isFinite(value) ? String(Number(value.toPrecision(4))) : "–";
}
