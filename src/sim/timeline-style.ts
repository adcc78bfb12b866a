/**
 * Style and colours of the timeline's page, light and dark.
 *
 * Invariant: every colour that the canvas uses is a custom property of the root, set for both schemes.
 */
export const TIMELINE_STYLE = `
:root {
  color-scheme: light dark;
  --page: #ffffff; --panel: #f6f7f9; --text: #1d232b; --muted: #66707c; --grid: #e9ecf0; --lane: #e3e7ec; --border: #d5dae1; --on-bar: #ffffff;
  --delivered: #7d9cc0; --dropped: #d6293e; --held: #b86e00; --flying: #8b95a1;
  --ok: #2f8f5b; --fail: #8a94a0; --info: #b07c10; --open: #5d6f86; --violation: #c4158a;
  --fault-network: #c8452f; --fault-node: #6f52c9; --fault-clock: #0b7f8f; --fault-disk: #94592b; --fault-thread: #a86a00; --fault-log: #3f7d2a;
}
@media (prefers-color-scheme: dark) {
  :root {
    --page: #14171c; --panel: #1c2027; --text: #e4e8ee; --muted: #939dab; --grid: #252b34; --lane: #2a313b; --border: #333b47; --on-bar: #0f1216;
    --delivered: #6488b3; --dropped: #ff6b78; --held: #f0a53a; --flying: #7d8794;
    --ok: #4fbf83; --fail: #8d98a6; --info: #e2b44b; --open: #8aa0bd; --violation: #ff5cc4;
    --fault-network: #ff8a70; --fault-node: #a68cff; --fault-clock: #49c3d4; --fault-disk: #d6996a; --fault-thread: #e8ad4a; --fault-log: #86c96d;
  }
}
* { box-sizing: border-box; }
body { margin: 0; padding: 16px 20px 40px; background: var(--page); color: var(--text); font: 13px/1.45 system-ui, "Segoe UI", sans-serif; }
header { display: flex; flex-wrap: wrap; align-items: center; gap: 6px 14px; }
h1 { margin: 0; font-size: 18px; font-weight: 650; }
.verdict { padding: 1px 10px; border-radius: 10px; font-weight: 600; color: var(--page); background: var(--ok); }
.verdict.failed { background: var(--violation); }
dl { display: flex; flex-wrap: wrap; gap: 4px 20px; margin: 0; }
dl div { display: flex; gap: 6px; }
dt { color: var(--muted); }
dd { margin: 0; font-variant-numeric: tabular-nums; }
#violations { display: grid; gap: 6px; margin: 12px 0 0; max-height: 24vh; overflow: auto; }
#violations button { text-align: left; padding: 6px 12px; border: 1px solid var(--border); border-left: 4px solid var(--violation); border-radius: 4px; background: var(--panel); color: inherit; font: inherit; cursor: pointer; overflow-wrap: anywhere; }
#violations button:hover, .zoom button:hover { border-color: var(--violation); }
.tools { display: flex; flex-wrap: wrap; align-items: stretch; gap: 10px; margin: 12px 0 0; }
fieldset { margin: 0; padding: 2px 12px 6px; border: 1px solid var(--border); border-radius: 6px; background: var(--panel); }
fieldset:not(:has(label)) { display: none; }
legend { padding: 0 4px; color: var(--muted); }
fieldset div { display: flex; flex-wrap: wrap; gap: 2px 14px; }
label { display: inline-flex; align-items: center; gap: 5px; white-space: nowrap; font-variant-numeric: tabular-nums; cursor: pointer; }
label input { margin: 0; accent-color: var(--muted); }
label i { width: 10px; height: 10px; border-radius: 2px; }
.zoom { display: flex; gap: 4px; margin-left: auto; align-items: end; }
.zoom button { min-width: 34px; height: 28px; border: 1px solid var(--border); border-radius: 5px; background: var(--panel); color: inherit; font: inherit; cursor: pointer; }
.hint { margin: 10px 0 6px; color: var(--muted); }
.hint span { color: var(--held); }
canvas { display: block; width: 100%; cursor: grab; touch-action: pan-y; outline: none; }
canvas:active { cursor: grabbing; }
canvas:focus-visible { outline: 2px solid var(--border); outline-offset: 4px; }
#tip { position: fixed; z-index: 1; max-width: 480px; padding: 6px 10px; border: 1px solid var(--border); border-radius: 5px; background: var(--panel); box-shadow: 0 4px 14px rgb(0 0 0 / 20%); white-space: pre-wrap; overflow-wrap: anywhere; pointer-events: none; }
`;
