// The web page of `raylift serve`: add X-rays, check their views and orientations, follow the job, view the volume.
import { Niivue, SLICE_TYPE } from "@niivue/niivue";

const VIEWS = { pa: "PA (frontal, from behind)", ap: "AP (frontal, from the front)", "lateral-left": "Left lateral", "lateral-right": "Right lateral" };
const TITLES = {
  "volume.nii.gz": "Volume, NIfTI", "volume.mha": "Volume, MetaImage", "volume.nrrd": "Volume, NRRD", "volume-dicom.zip": "Volume and uncertainty, DICOM",
  "uncertainty.nii.gz": "Uncertainty, NIfTI", "uncertainty.mha": "Uncertainty, MetaImage", "uncertainty.nrrd": "Uncertainty, NRRD", "report.html": "Report",
};
const by = (id) => document.getElementById(id);
const state = { cards: [], job: null, source: null, viewer: null };

function element(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value === true) node.setAttribute(name, "");
    else if (value !== false && value !== null) node.setAttribute(name, value);
  }
  node.append(...children);
  return node;
}

function say(text) {
  by("message").textContent = text;
  by("message").hidden = !text;
}

async function ask(path, options = {}) {
  let answer;
  try {
    answer = await fetch(path, options);
  } catch {
    throw new Error("The server does not answer.");
  }
  if (answer.status === 401) by("login").hidden = false;
  if (!answer.ok) {
    const { detail } = await answer.json().catch(() => ({}));
    throw new Error(typeof detail === "string" ? detail : `The server refused this (${answer.status}).`);
  }
  return answer.status === 204 ? null : answer.json();
}

function form(cards) {
  const data = new FormData();
  for (const card of cards) data.append("xrays", card.file, card.file.name);
  const xrays = cards.map((card) => ({ view: card.view ?? null, orientation: card.turnable === false ? null : card.orientation ?? null }));
  data.append("options", JSON.stringify({ xrays, refine: by("refine").checked, title: cards.map((card) => card.file.name).join(", ").slice(0, 100) }));
  return data;
}

async function inspect(card) {
  const { xrays } = await ask("api/inspect", { method: "POST", body: form([card]) });
  const { view, ...rest } = xrays[0];
  Object.assign(card, rest, { view: view ?? card.view });
}

async function add(files) {
  say("");
  for (const file of files) {
    if (state.cards.length >= 8) return say("A job can have at most eight X-rays.");
    const card = { file };
    try {
      by("drop").setAttribute("aria-busy", "true");
      await inspect(card);
      state.cards.push(card);
    } catch (problem) {
      say(problem.message);
    } finally {
      by("drop").removeAttribute("aria-busy");
    }
    showCards();
  }
}

async function change(card, index, what) {
  const before = { view: card.view, orientation: { ...card.orientation } };
  by("cards").setAttribute("aria-busy", "true");
  try {
    what(card);
    await inspect(card);
    card.sure = true;
    say("");
  } catch (problem) {
    Object.assign(card, before);
    say(problem.message);
  } finally {
    by("cards").removeAttribute("aria-busy");
  }
  const label = document.activeElement?.getAttribute("aria-label");
  showCards();
  by("cards").children[index]?.querySelector(`[aria-label="${label}"]`)?.focus();
}

function showCards() {
  by("cards").replaceChildren(...state.cards.map((card, index) => {
    const known = card.view in VIEWS ? VIEWS : { ...VIEWS, ...(card.view ? { [card.view]: `${card.view}°` } : {}) };
    const lateral = card.view?.startsWith("lateral");
    const turn = (label, sign, what) => element("button", { type: "button", "aria-label": `${label}, ${card.name}`, title: label, onclick: () => change(card, index, what) }, sign);
    return element("li", {},
      element("figure", {}, element("img", { src: card.picture, alt: `${card.name}, in the chosen orientation` }),
        element("span", { "aria-hidden": "true" }, lateral ? "A" : "R"), element("span", { "aria-hidden": "true" }, lateral ? "P" : "L")),
      element("p", { class: "name" }, card.name),
      element("select", { "aria-label": `View of ${card.name}`, onchange: (event) => change(card, index, (one) => { one.view = event.target.value; }) },
        ...(card.view ? [] : [element("option", { value: "", selected: true, disabled: true }, "Choose the view")]),
        ...Object.entries(known).map(([value, text]) => element("option", { value, selected: value === card.view }, text))),
      element("p", { class: "ask" }, card.sure
        ? (card.turnable ? "Please check: the head is up, bone is bright, and the sides are as marked." : "View and orientation come from the file.")
        : "The view is not certain: please choose it, and check the orientation."),
      element("div", { class: "buttons" },
        ...(card.turnable ? [
          turn("Turn counter-clockwise", "↺", (one) => { one.orientation.quarter_turns = (one.orientation.quarter_turns + (one.orientation.mirrored ? 3 : 1)) % 4; }),
          turn("Mirror", "⇋", (one) => { one.orientation.mirrored = !one.orientation.mirrored; }),
          turn("Invert", "◐", (one) => { one.orientation.inverted = !one.orientation.inverted; }),
        ] : []),
        element("button", { type: "button", "aria-label": `Remove ${card.name}`, onclick: () => { state.cards.splice(index, 1); showCards(); } }, "Remove")));
  }));
  by("start").hidden = !state.cards.length;
  by("go").disabled = state.cards.some((card) => !card.view);
}

async function submit() {
  by("go").disabled = true;
  say("");
  try {
    const job = await ask("api/jobs", { method: "POST", body: form(state.cards) });
    location.hash = job.id;
  } catch (problem) {
    say(problem.message);
  } finally {
    by("go").disabled = false;
  }
}

function follow(id) {
  state.source?.close();
  state.job = id;
  by("new").hidden = Boolean(id);
  by("job").hidden = !id;
  by("result").hidden = true;
  if (!id) return earlier();
  state.source = new EventSource(`api/jobs/${id}/events`);
  state.source.addEventListener("job", (event) => showJob(JSON.parse(event.data)));
  state.source.onerror = async () => {
    state.source.close();
    try {
      showJob(await ask(`api/jobs/${id}`));
      if (state.job === id && by("progress").hidden === false) setTimeout(() => state.job === id && follow(id), 2000);
    } catch (problem) {
      say(problem.message);
    }
  };
}

function showJob(job) {
  if (job.id !== state.job) return;
  const words = {
    queued: job.place ? `Waiting; ${job.place} ${job.place === 1 ? "job is" : "jobs are"} before this one.` : "Waiting; this job is next.",
    running: `${job.note || "Starting"} …`, done: "Done.", failed: `Failed: ${job.error}`, cancelled: "Cancelled.",
  };
  const ended = !["queued", "running"].includes(job.state);
  by("job-title").textContent = job.title || "Reconstruction";
  by("state").textContent = words[job.state];
  by("progress").hidden = ended;
  by("progress").value = job.progress;
  by("cancel").hidden = ended;
  if (!ended) return;
  state.source?.close();
  earlier();
  if (job.state === "done") showResult(job).catch((problem) => say(problem.message));
}

async function showResult(job) {
  const file = (name) => `api/jobs/${job.id}/files/${name}`;
  const report = await ask(file("report.json"));
  if (job.id !== state.job) return;
  by("result").hidden = false;
  by("flag").hidden = !report.warnings.length;
  by("warnings").textContent = `${report.warnings.join("; ")}.`;
  by("trust").textContent = `${report.trust[0].toUpperCase()}${report.trust.slice(1)}.`;
  by("notes").replaceChildren(...report.notes.map((note) => element("li", {}, note)));
  by("agreement").src = file("agreement.png");
  by("downloads").replaceChildren(...job.files.filter((name) => TITLES[name]).map((name) =>
    element("li", {}, element("a", { href: `${file(name)}?download=true`, download: true }, TITLES[name]))));
  const volumes = [{ url: file("volume.nii.gz"), name: "volume.nii.gz", colormap: "gray", cal_min: -1000, cal_max: 600 }];
  const uncertain = job.files.includes("uncertainty.nii.gz");
  if (uncertain) volumes.push({ url: file("uncertainty.nii.gz"), name: "uncertainty.nii.gz", colormap: "inferno", opacity: 0, cal_min: 0, cal_max: 400 });
  by("uncertainty-label").hidden = !uncertain;
  by("uncertainty").value = 0;
  if (!state.viewer) {
    state.viewer = new Niivue({ isRadiologicalConvention: true, sagittalNoseLeft: true, crosshairWidth: 0.5, show3Dcrosshair: true, backColor: [0, 0, 0, 1], isResizeCanvas: true });
    await state.viewer.attachToCanvas(by("viewer"));
  }
  await state.viewer.loadVolumes(volumes);
  await show("planes");
  by("viewer").dataset.ready = job.id;
}

async function show(what) {
  const planes = what === "planes";
  for (const button of document.querySelectorAll("[data-show]")) button.setAttribute("aria-pressed", String(button.dataset.show === what));
  const viewer = state.viewer;
  if (!viewer?.volumes.length) return;
  const [volume] = viewer.volumes;
  // A rendering leaves out air and lungs, and shows dense tissue bright.
  [volume.cal_min, volume.cal_max] = planes ? [-1000, 600] : [-250, 250];
  viewer.setColormap(volume.id, planes ? "gray" : "ct_surface");
  viewer.opts.show3Dcrosshair = planes;
  viewer.setSliceType(planes ? SLICE_TYPE.MULTIPLANAR : SLICE_TYPE.RENDER);
  if (!planes) {
    viewer.setRenderAzimuthElevation(160, 15);
    await viewer.setVolumeRenderIllumination(0.6);
  }
  viewer.updateGLVolume();
}

async function earlier() {
  try {
    const jobs = await ask("api/jobs");
    by("earlier").replaceChildren(...(jobs.length ? jobs.map((job) => element("li", {},
      element("span", {}, element("a", { href: `#${job.id}` }, job.title || job.xrays.join(", ") || job.id), ` (${job.state}, ${new Date(job.created * 1000).toLocaleString()})`),
      element("button", { type: "button", "aria-label": `Remove ${job.title}`, onclick: () => remove(job) }, ["queued", "running"].includes(job.state) ? "Cancel" : "Remove"))) : [element("li", {}, "No jobs yet.")]));
  } catch (problem) {
    say(problem.message);
  }
}

async function remove(job) {
  try {
    await ask(`api/jobs/${job.id}`, { method: "DELETE" });
    if (job.id === state.job) location.hash = "";
  } catch (problem) {
    say(problem.message);
  }
  earlier();
}

by("files").addEventListener("change", (event) => { add([...event.target.files]); event.target.value = ""; });
for (const kind of ["dragover", "dragleave", "drop"]) {
  by("drop").addEventListener(kind, (event) => {
    event.preventDefault();
    by("drop").classList.toggle("over", kind === "dragover");
    if (kind === "drop") add([...event.dataTransfer.files]);
  });
}
by("go").addEventListener("click", submit);
by("cancel").addEventListener("click", () => ask(`api/jobs/${state.job}`, { method: "DELETE" }).catch((problem) => say(problem.message)));
by("again").addEventListener("click", () => { state.cards = []; showCards(); location.hash = ""; by("files").focus(); });
by("uncertainty").addEventListener("input", (event) => state.viewer?.setOpacity(1, Number(event.target.value)));
for (const button of document.querySelectorAll("[data-show]")) button.addEventListener("click", () => show(button.dataset.show));
by("login").addEventListener("submit", async (event) => {
  event.preventDefault();
  try {
    const body = JSON.stringify({ token: by("token").value });
    await ask("api/login", { method: "POST", headers: { "Content-Type": "application/json" }, body });
    location.reload();
  } catch (problem) {
    say(problem.message);
  }
});
addEventListener("hashchange", () => { say(""); follow(location.hash.slice(1) || null); });
ask("api/about").then((about) => { by("about").textContent = `Raylift ${about.version}. ${about.purpose}`; }).catch((problem) => say(problem.message));
follow(location.hash.slice(1) || null);
