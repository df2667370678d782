"use strict";
// Without this script everything is shown, one step below the other.
const make = (tag, text, properties = {}) => Object.assign(document.createElement(tag), { textContent: text }, properties);

for (const figure of document.querySelectorAll("[data-zoom]")) {
  const button = make("button", "Enlarge", { type: "button" });
  button.addEventListener("click", () => {
    button.textContent = figure.classList.toggle("wide") ? "Side by side" : "Enlarge";
  });
  figure.querySelector("figcaption").append(button);
}

for (const box of document.querySelectorAll("[data-frames]")) {
  const frames = [...box.children];
  if (frames.length < 2) continue;
  const bar = make("div", "", { className: "slider" });
  const label = make("output", "");
  const play = make("button", "Play", { type: "button" });
  const last = frames.length - 1;
  const input = make("input", "", { type: "range", min: 0, max: last, value: last });
  input.setAttribute("aria-label", "step");
  let timer = 0;
  const stop = () => { clearInterval(timer); timer = 0; play.textContent = "Play"; };
  const show = () => {
    frames.forEach((frame, n) => { frame.hidden = n !== Number(input.value); });
    label.textContent = frames[input.value].dataset.name;
  };
  const advance = () => {
    if (Number(input.value) === last) return stop();
    input.value = Number(input.value) + 1;
    show();
  };
  input.addEventListener("input", () => { stop(); show(); });
  play.addEventListener("click", () => {
    if (timer) return stop();
    if (Number(input.value) === last) { input.value = 0; show(); }
    play.textContent = "Stop";
    timer = setInterval(advance, 800);
  });
  box.classList.add("stepped");
  bar.append(play, input, label);
  box.prepend(bar);
  show();
}

for (const box of document.querySelectorAll("[data-tabs]")) {
  const panels = [...box.children];
  if (panels.length < 2) continue;
  const bar = make("div", "", { className: "tabs" });
  bar.setAttribute("role", "tablist");
  const show = (chosen) => panels.forEach((panel, n) => {
    panel.hidden = n !== chosen;
    bar.children[n].setAttribute("aria-selected", String(n === chosen));
  });
  panels.forEach((panel, n) => {
    const tab = make("button", panel.dataset.name, { type: "button" });
    tab.setAttribute("role", "tab");
    tab.addEventListener("click", () => show(n));
    bar.append(tab);
  });
  box.prepend(bar);
  box.classList.add("tabbed");
  show(0);
}
