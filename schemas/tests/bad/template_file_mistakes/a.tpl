one
${y}
