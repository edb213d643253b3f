"use strict";

// Plots: an interpreter evaluates Vega's expressions, so the page needs no eval and its policy can forbid it.
const specs = JSON.parse(document.getElementById("specs").textContent);
const options = { mode: "vega-lite", renderer: "svg", actions: false, ast: true, defaultStyle: false };

async function draw(element) {
  try {
    await vegaEmbed(element, specs[element.dataset.plot], options);
  } catch (error) {
    element.textContent = "This plot could not be drawn; its numbers are in the table below.";
    console.error(error);
  }
}

// One after another from the top, with a pause for the reader's scrolling and clicking between them.
async function drawAll(elements) {
  for (const element of elements) {
    await new Promise((resolve) => setTimeout(resolve, 0));
    await draw(element);
  }
  document.documentElement.dataset.drawn = String(elements.length);
}
drawAll([...document.querySelectorAll("[data-plot]")]);

// Tables: sort by the column whose heading is pressed, filter by the text typed.
const order = new Intl.Collator(undefined, { numeric: true });

function compare(a, b) {
  const [x, y] = [Number(a), Number(b)];
  return a !== "" && b !== "" && !Number.isNaN(x) && !Number.isNaN(y) ? x - y : order.compare(a, b);
}

function value(row, column) {
  const cell = row.cells[column];
  return cell.dataset.value ?? cell.textContent.trim();
}

function sortable(table) {
  const body = table.tBodies[0];
  table.querySelectorAll("thead th").forEach((heading, column) => {
    heading.querySelector("button")?.addEventListener("click", () => {
      const down = heading.getAttribute("aria-sort") === "ascending";
      table.querySelectorAll("th[aria-sort]").forEach((other) => other.removeAttribute("aria-sort"));
      heading.setAttribute("aria-sort", down ? "descending" : "ascending");
      const rows = [...body.rows].sort((a, b) => {
        const [x, y] = [value(a, column), value(b, column)];
        if (x === "" || y === "") return Number(x === "") - Number(y === ""); // what has no value comes last
        return down ? compare(y, x) : compare(x, y);
      });
      body.append(...rows);
    });
  });
}

function filterable(input) {
  const rows = [...document.getElementById(input.dataset.filters).tBodies[0].rows];
  const count = document.getElementById(input.getAttribute("aria-describedby"));
  input.addEventListener("input", () => {
    const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    for (const row of rows) {
      const text = row.textContent.toLowerCase();
      row.hidden = !words.every((word) => text.includes(word));
      shown += Number(!row.hidden);
    }
    count.textContent = `${shown} of ${rows.length}`;
  });
}

document.querySelectorAll("table.sortable").forEach(sortable);
document.querySelectorAll("input[data-filters]").forEach(filterable);
