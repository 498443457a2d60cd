# Turns web files into one C file of const bytes: cmake -DOUT=assets.c "-DFILES=index.html;style.css" -P embed.cmake
set(type_html "text/html; charset=utf-8")
set(type_css "text/css; charset=utf-8")
set(type_js "text/javascript; charset=utf-8")
set(type_svg "image/svg+xml")
set(type_txt "text/plain; charset=utf-8")
set(type_png "image/png")
set(number 0)
set(arrays "")
set(rows "")
foreach(file ${FILES})
	get_filename_component(name ${file} NAME)
	string(REGEX REPLACE ".*\\." "" ending "${name}")
	if(NOT DEFINED type_${ending})
		message(FATAL_ERROR "${name}: no media type known for .${ending}")
	endif()
	file(READ ${file} hex HEX)
	file(SHA256 ${file} hash)
	string(REGEX REPLACE "(................................)" "\\1\n" hex "${hex}")
	string(REGEX REPLACE "([0-9a-f][0-9a-f])" "'\\\\x\\1'," bytes "${hex}")
	string(APPEND arrays "static const char bytes_${number}[] = {\n${bytes}\n0 };\n\n")
	string(APPEND rows "\t{ .name = \"${name}\", .type = \"${type_${ending}}\", .hash = \"${hash}\",\n"
		"\t  .bytes = bytes_${number}, .n = sizeof(bytes_${number}) - 1 },\n")
	math(EXPR number "${number} + 1")
endforeach()
file(WRITE ${OUT} "/* Made by web-assets/embed.cmake: do not edit. */
#include \"web-assets/assets.h\"

#include <string.h>

${arrays}const struct asset assets[] = {\n${rows}};
const size_t assets_count = ${number};

const struct asset *asset_find(const char *name)
{
	for (size_t i = 0; i < assets_count; i++)
		if (!strcmp(assets[i].name, name))
			return &assets[i];
	return NULL;
}
")
