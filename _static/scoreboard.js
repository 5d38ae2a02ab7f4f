// The scoreboard's filters: a row is shown where it agrees with every choice, a figure where one of
// its rows is shown.
document.addEventListener("DOMContentLoaded", () => {
  const filters = [...document.querySelectorAll("select[data-filter]")];
  const rows = [...document.querySelectorAll("[data-claims] tr[data-verdict]")];
  const update = () => {
    for (const row of rows) {
      row.hidden = filters.some((f) => f.value && row.dataset[f.dataset.filter] !== f.value);
    }
    for (const figure of document.querySelectorAll("[data-claims]")) {
      figure.hidden = !figure.querySelector("tr[data-verdict]:not([hidden])");
    }
    const shown = rows.filter((row) => !row.hidden).length;
    for (const output of document.querySelectorAll("output[data-shown]")) {
      output.textContent = `${shown} of ${rows.length} claims`;
    }
  };
  for (const filter of filters) filter.addEventListener("change", update);
});
