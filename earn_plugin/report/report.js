'use strict';

// A slider shows so much of the image before, and the rest of the image after.
for (const stage of document.querySelectorAll('.stage')) {
  const slider = stage.querySelector('input');
  const show = () => {
    stage.style.setProperty('--share', `${slider.value}%`);
  };
  slider.addEventListener('input', show);
  show(); // the browser may have kept the position
}

// A heading sorts its table, ascending at first, then the other way round.
const keyOf = (row, column) => {
  const cell = row.cells[column];
  if (!('value' in cell.dataset)) return cell.textContent;
  const value = Number(cell.dataset.value);
  return Number.isNaN(value) ? -Infinity : value;
};
const inOrder = (a, b) =>
  typeof a === 'number' ? (a > b) - (a < b) : a.localeCompare(b, undefined, { numeric: true });

for (const heading of document.querySelectorAll('th[aria-sort]')) {
  heading.querySelector('button').addEventListener('click', () => {
    const body = heading.closest('table').tBodies[0];
    const sign = heading.ariaSort === 'ascending' ? -1 : 1;
    const column = heading.cellIndex;
    const rows = [...body.rows].sort((a, b) => sign * inOrder(keyOf(a, column), keyOf(b, column)));
    body.append(...rows);
    for (const other of heading.parentElement.cells) {
      if (other.hasAttribute('aria-sort')) other.ariaSort = 'none';
    }
    heading.ariaSort = sign === 1 ? 'ascending' : 'descending';
  });
}
