// The page of the server: an image in, labels out. It talks to this server only.
"use strict";

const at = (id) => document.getElementById(id);
const STAGES = { decode: "decode", preprocess: "resize and normalise", queue: "wait for the batch", inference: "inference" };
let models = [];
let image = null;
let asked = 0;

function made(tag, properties = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}

async function request(path, options = {}) {
  const token = sessionStorage.getItem("token");
  const headers = token ? { authorization: `Bearer ${token}` } : {};
  const reply = await fetch(path, { ...options, headers });
  if (reply.status === 401) at("token-form").hidden = false;
  if (reply.ok) return reply;
  const fields = await reply.json().catch(() => ({}));
  throw new Error(fields.error || `The server answered ${reply.status}.`);
}

async function start() {
  try {
    models = await (await request("v1/models")).json();
  } catch (error) {
    at("state").textContent = error.message;
    return;
  }
  at("token-form").hidden = true;
  at("state").textContent = models.length ? `${models.length} ${models.length > 1 ? "models" : "model"} ready` : "No model is ready.";
  at("model").replaceChildren(...models.map((model, index) => made("option", { value: index }, title(model))));
  at("other").replaceChildren(
    made("option", { value: "" }, "nothing"),
    ...models.map((model, index) => made("option", { value: index }, title(model))),
  );
  showCards();
}

function title(model) {
  return `${model.name} ${model.version} (${model.precision})`;
}

function chosen() {
  const first = models[at("model").value];
  const second = at("other").value === "" ? null : models[at("other").value];
  return [first, second].filter(Boolean);
}

async function ask() {
  if (!image || !models.length) return;
  const number = ++asked;
  at("problem").textContent = "";
  try {
    const answers = [];
    for (const model of chosen()) answers.push(await classified(model)); // in turn: times of one alone
    if (number === asked) showAnswers(answers);
  } catch (error) {
    if (number !== asked) return;
    at("problem").textContent = error.message;
    at("difference").textContent = "";
    at("columns").replaceChildren(made("p", { className: "quiet" }, "No answer."));
  }
}

async function classified(model) {
  const query = new URLSearchParams({ model: model.name, version: model.version, top: at("top").value || 5 });
  const begun = performance.now();
  const reply = await request(`v1/classify?${query}`, { method: "POST", body: image });
  const content = await reply.json();
  const total = performance.now() - begun;
  const preview = await request(`v1/preview?${query}`, { method: "POST", body: image });
  const stages = (reply.headers.get("server-timing") || "").split(", ").map((part) => part.split(";dur="));
  return { model, total, stages, predictions: content.results[0].predictions, seen: await preview.blob() };
}

function showAnswers(answers) {
  at("difference").textContent = answers.length === 2 ? difference(...answers) : "";
  at("columns").replaceChildren(...answers.map((answer, index) => column(answer, index === 1)));
}

function difference(one, two) {
  const of = (answer) => new Map(answer.predictions.map((p) => [p.label, p.probability]));
  const [first, second] = [of(one), of(two)];
  let [most, label] = [0, one.predictions[0].label];
  for (const name of first.keys()) {
    const gap = Math.abs(first.get(name) - (second.get(name) ?? first.get(name)));
    if (gap > most) [most, label] = [gap, name];
  }
  const [a, b] = [one.predictions[0].label, two.predictions[0].label];
  const points = (100 * most).toFixed(2);
  if (a === b && points === "0.00") return `Both say ${a}, with the same probabilities.`;
  const gap = `The probability of ${label} differs most: by ${points} points.`;
  return a === b ? `Both say ${a}. ${gap}` : `They differ: ${a} and ${b}. ${gap}`;
}

function column(answer, second) {
  const rows = answer.predictions.map((prediction) => {
    const share = `${(100 * prediction.probability).toFixed(2)}\u00a0%`;
    const fill = made("div");
    fill.style.width = `${100 * prediction.probability}%`;
    const bar = made("div", { className: "bar", ariaHidden: "true" }, fill);
    const names = made("div", { className: "names" }, made("span", {}, prediction.label), made("span", {}, share));
    return made("li", {}, names, bar);
  });
  const seen = made("img", { alt: "The image after resize and crop", src: URL.createObjectURL(answer.seen) });
  seen.onload = () => URL.revokeObjectURL(seen.src);
  const [height, width] = answer.model.input_size_px;
  return made(
    "article",
    { className: second ? "second" : "" },
    made("h3", {}, title(answer.model)),
    made("ol", { className: "classes" }, ...rows),
    made("figure", { className: "seen" }, seen, made("figcaption", {}, `What the network sees: ${width}×${height} pixels`)),
    timeTable(answer),
  );
}

function timeTable(answer) {
  const named = answer.stages.filter(([name]) => STAGES[name]);
  const server = named.reduce((sum, [, ms]) => sum + Number(ms), 0);
  const lines = [
    ...named.map(([name, ms]) => [STAGES[name], Number(ms)]),
    ["network and the rest", Math.max(0, answer.total - server)],
    ["all", answer.total],
  ];
  const rows = lines.map(([name, ms]) =>
    made("tr", {}, made("th", { scope: "row" }, name), made("td", {}, `${ms.toFixed(1)} ms`)));
  return made("table", { className: "split" }, made("caption", {}, "Where the time went"), made("tbody", {}, ...rows));
}

function showCards() {
  at("card").replaceChildren(...chosen().map(card));
}

function card(model) {
  const shown = model.labels.slice(0, 20).join(", ") + (model.labels.length > 20 ? ", …" : "");
  const lines = [
    ["architecture", `${model.architecture}, ${model.parameters.toLocaleString("en")} parameters`],
    ["runs as", `${model.precision} on ${model.backend}`],
    ["classes", `${model.labels.length}: ${shown}`],
    ["accuracy", accuracy(model.accuracy)],
    ["preprocessing", preprocessing(model.preprocess)],
  ];
  const items = lines.flatMap(([name, text]) => [made("dt", {}, name), made("dd", {}, text)]);
  const article = made("article", {}, made("h3", {}, title(model)), made("dl", {}, ...items));
  if (model.assumptions.length) {
    const list = made("ul", {}, ...model.assumptions.map((text) => made("li", {}, text)));
    article.append(made("details", {}, made("summary", {}, `${model.assumptions.length} assumptions of the export`), list));
  }
  return article;
}

function accuracy(found) {
  if (!found) return "not verified yet: resdeploy verify";
  const parts = [];
  if (found.top1 != null) parts.push(`${found.top1.toFixed(2)}\u00a0% top-1${interval(found.top1_ci95)}`);
  if (found.agreement != null) parts.push(`${found.agreement.toFixed(2)}\u00a0% the same answers as PyTorch`);
  if (found.drop != null) parts.push(`drop ${found.drop.toFixed(2)} points${interval(found.drop_ci95)}`);
  return `${parts.join("; ")}; on ${found.images} images; verdict: ${found.verdict}`;
}

function interval(ends) {
  return ends ? ` (95\u00a0%: ${ends[0].toFixed(2)} to ${ends[1].toFixed(2)})` : "";
}

function preprocessing(fields) {
  const size = (px) => (Array.isArray(px) ? `${px[1]}×${px[0]}` : `shorter side ${px}`);
  const steps = [];
  if (fields.resize_px != null) steps.push(`resize to ${size(fields.resize_px)} (${fields.interpolation})`);
  if (fields.crop_px != null) steps.push(`crop the centre to ${size(fields.crop_px)}`);
  steps.push(`mean ${fields.mean.join(", ")}`, `std ${fields.std.join(", ")}`);
  return steps.join("; ");
}

function take(file) {
  if (!file) return;
  image = file;
  const given = at("given");
  URL.revokeObjectURL(given.src);
  given.hidden = false;
  given.onerror = () => { given.hidden = true; };
  given.src = URL.createObjectURL(file);
  at("hint").textContent = file.name || "The image from the camera or the clipboard";
  ask();
}

async function camera(on) {
  const video = at("video");
  if (on) {
    try {
      video.srcObject = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment" } });
      await video.play();
    } catch (error) {
      at("problem").textContent = `The camera cannot be used: ${error.message}`;
      return;
    }
  } else if (video.srcObject) {
    video.srcObject.getTracks().forEach((track) => track.stop());
    video.srcObject = null;
  }
  for (const id of ["video", "shoot", "camera-off"]) at(id).hidden = !on;
  at("camera").hidden = on;
  at(on ? "shoot" : "camera").focus();
}

function shoot() {
  const video = at("video");
  const canvas = made("canvas", { width: video.videoWidth, height: video.videoHeight });
  canvas.getContext("2d").drawImage(video, 0, 0);
  canvas.toBlob(take, "image/jpeg", 0.95);
}

at("file").addEventListener("change", (event) => take(event.target.files[0]));
at("camera").addEventListener("click", () => camera(true));
at("camera-off").addEventListener("click", () => camera(false));
at("shoot").addEventListener("click", shoot);
at("top").addEventListener("change", ask);
for (const id of ["model", "other"]) {
  at(id).addEventListener("change", () => { showCards(); ask(); });
}
at("token-form").addEventListener("submit", (event) => {
  event.preventDefault();
  sessionStorage.setItem("token", at("token").value);
  start();
});
document.addEventListener("paste", (event) => take([...event.clipboardData.files][0]));
for (const kind of ["dragenter", "dragover", "dragleave", "drop"]) {
  document.addEventListener(kind, (event) => {
    event.preventDefault();
    at("drop").classList.toggle("over", kind === "dragenter" || kind === "dragover");
    if (kind === "drop") take(event.dataTransfer.files[0]);
  });
}
start();
