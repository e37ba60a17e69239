"use strict";

document.documentElement.classList.add("scripted");
document.querySelectorAll("[data-slider]").forEach(compareBySlider);
document.querySelectorAll("[data-variants]").forEach(linkViews);

/* A native range input decides where the picture is split; dragging on the picture moves the input. */
function compareBySlider(figure) {
  const [box, view, stack, seam, knob, after, zoom] = ["box", "view", "stack", "seam", "knob", "after", "zoom"].map(
    (name) => figure.querySelector(`[data-${name}]`),
  );
  const range = figure.querySelector("input[type=range]");
  const isActual = () => figure.classList.contains("actual");

  /* The share counts over what is visible, so that the seam stays in sight wherever the picture is scrolled to. */
  const split = () => {
    const x = (view.clientWidth * range.value) / 100;
    seam.style.setProperty("left", `${x}px`);
    stack.style.setProperty("--split", `${x + view.scrollLeft}px`);
    range.setAttribute("aria-valuetext", `${range.value} % before, ${100 - range.value} % after`);
  };
  const moveTo = (event) => {
    const { left } = view.getBoundingClientRect();
    range.value = (100 * (event.clientX - left)) / view.clientWidth;
    split();
  };

  let grip = null;
  box.addEventListener("pointerdown", (event) => {
    const onKnob = event.target === knob;
    if (event.button !== 0 || (isActual() && !onKnob && event.pointerType !== "mouse")) return;
    grip = isActual() && !onKnob ? { x: event.clientX + view.scrollLeft, y: event.clientY + view.scrollTop } : "seam";
    box.setPointerCapture(event.pointerId);
    if (grip === "seam" && !onKnob) moveTo(event);
  });
  box.addEventListener("pointermove", (event) => {
    if (grip === "seam") moveTo(event);
    else if (grip) view.scrollTo(grip.x - event.clientX, grip.y - event.clientY);
  });
  for (const end of ["pointerup", "pointercancel"]) box.addEventListener(end, () => (grip = null));

  zoom.addEventListener("click", () => {
    const actual = figure.classList.toggle("actual");
    zoom.setAttribute("aria-pressed", String(actual));
    /* One pixel of the picture is one of the screen's, also where a CSS pixel is several of them. */
    stack.style.setProperty("--actual", `${after.naturalWidth / window.devicePixelRatio}px`);
    if (actual) {
      view.setAttribute("tabindex", "0");
      view.setAttribute("role", "region");
      view.setAttribute("aria-label", "Picture at 100 %, to be scrolled");
      view.scrollTo((view.scrollWidth - view.clientWidth) / 2, (view.scrollHeight - view.clientHeight) / 2);
    } else {
      for (const name of ["tabindex", "role", "aria-label"]) view.removeAttribute(name);
    }
    split();
  });

  range.addEventListener("input", split);
  view.addEventListener("scroll", split, { passive: true });
  new ResizeObserver(split).observe(view);
  split();
}

/* Every view of a grid of variants shows the same part at the same size. */
function linkViews(grid) {
  const views = [...grid.querySelectorAll("[data-view]")];
  const range = grid.querySelector("input[type=range]");
  const room = (view) => [view.scrollWidth - view.clientWidth, view.scrollHeight - view.clientHeight];
  let leader = null;

  const place = (view, across, down) => {
    const [width, height] = room(view);
    view.scrollTo(across * width, down * height);
  };
  const follow = (view) => {
    if (leader !== view) return;
    const [width, height] = room(view);
    const across = width > 0 ? view.scrollLeft / width : 0.5;
    const down = height > 0 ? view.scrollTop / height : 0.5;
    views.filter((other) => other !== view).forEach((other) => place(other, across, down));
  };
  const zoom = () => {
    const [first] = views;
    const [width, height] = room(first);
    const across = width > 0 ? first.scrollLeft / width : 0.5;
    const down = height > 0 ? first.scrollTop / height : 0.5;
    range.setAttribute("aria-valuetext", `${range.value} % of the width`);
    grid.style.setProperty("--zoom", `${range.value}%`);
    views.forEach((view) => place(view, across, down));
  };

  for (const view of views) {
    const image = view.querySelector("img");
    view.style.setProperty("aspect-ratio", `${image.getAttribute("width")} / ${image.getAttribute("height")}`);
    /* Only who is touched leads: scrolling that follows must not lead back. */
    for (const event of ["pointerdown", "wheel", "keydown", "focus"]) {
      view.addEventListener(event, () => (leader = view), { passive: true });
    }
    view.addEventListener("scroll", () => follow(view), { passive: true });
    let from = null;
    view.addEventListener("pointerdown", (event) => {
      if (event.pointerType !== "mouse" || event.button !== 0) return;
      from = { x: event.clientX + view.scrollLeft, y: event.clientY + view.scrollTop };
      view.setPointerCapture(event.pointerId);
    });
    view.addEventListener("pointermove", (event) => {
      if (from) view.scrollTo(from.x - event.clientX, from.y - event.clientY);
    });
    for (const end of ["pointerup", "pointercancel"]) view.addEventListener(end, () => (from = null));
  }
  range.addEventListener("input", zoom);
  zoom();
}
