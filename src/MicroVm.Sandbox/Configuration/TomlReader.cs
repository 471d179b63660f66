using System.Globalization;
using System.Text;

namespace MicroVm.Sandbox.Configuration;

/// <summary>
/// Reads the part of TOML 1.0 that the configuration file needs: <c>key = value</c> lines and comments, where a value is a basic or
/// literal string on one line, a decimal integer, true or false, or an array of strings, which may span lines. Anything else of TOML (tables,
/// dotted keys, dates, floats) is an error that names it. A complete TOML library would add 1.6 MB to the executable.
/// </summary>
internal sealed class TomlReader
{
    private readonly string _text;
    private readonly string _file;
    private int _at;

    private TomlReader(string text, string file) => (_text, _file) = (text, file);

    /// <summary>Reads a document: long, bool, string or list of strings by key, with the line of each.</summary>
    /// <param name="text">The document.</param>
    /// <param name="file">Its name, for errors.</param>
    /// <exception cref="SandboxException">It is malformed, a key is repeated, or it uses what is not supported.</exception>
    internal static IReadOnlyList<(string Key, object Value, int Line)> Read(string text, string file) => new TomlReader(text, file).ReadAll();

    private List<(string Key, object Value, int Line)> ReadAll()
    {
        List<(string Key, object Value, int Line)> members = [];
        while (SkipBlank())
        {
            int line = Line;
            string key = ReadKey();
            if (members.Exists(m => m.Key == key))
            {
                throw Error($"{key} is set twice");
            }

            members.Add((key, ReadValue(), line));
            EndLine();
        }

        return members;
    }

    private int Line => _text.AsSpan(0, Math.Min(_at, _text.Length)).Count('\n') + 1;

    private char Current => _at < _text.Length ? _text[_at] : '\0';

    private SandboxException Error(string what) => new(string.Create(CultureInfo.InvariantCulture, $"{_file}, line {Line}: {what}"));

    /// <summary>Moves over spaces, line ends and comments; false at the end.</summary>
    private bool SkipBlank()
    {
        while (_at < _text.Length)
        {
            if (Current == '#')
            {
                SkipComment();
            }
            else if (Current is ' ' or '\t' or '\r' or '\n')
            {
                _at++;
            }
            else
            {
                return true;
            }
        }

        return false;
    }

    private void SkipSpaces()
    {
        while (Current is ' ' or '\t')
        {
            _at++;
        }
    }

    private void SkipComment()
    {
        while (_at < _text.Length && Current != '\n')
        {
            _at++;
        }
    }

    private string ReadKey()
    {
        if (Current == '[')
        {
            throw Error("tables are not supported; all keys are at the top");
        }

        int start = _at;
        while (char.IsAsciiLetterOrDigit(Current) || Current is '-' or '_')
        {
            _at++;
        }

        string key = _text[start.._at];
        SkipSpaces();
        if (key.Length == 0 || Current != '=')
        {
            throw Error("expected a line of the form key = value");
        }

        _at++;
        SkipSpaces();
        return key;
    }

    private object ReadValue() => Current switch
    {
        '"' or '\'' => ReadString(),
        '[' => ReadArray(),
        _ => ReadWord(),
    };

    private object ReadWord()
    {
        int start = _at;
        while (_at < _text.Length && Current is not (' ' or '\t' or '\r' or '\n' or '#' or ',' or ']'))
        {
            _at++;
        }

        string word = _text[start.._at];
        return word switch
        {
            "true" => true,
            "false" => false,
            _ when long.TryParse(word.Replace("_", "", StringComparison.Ordinal), NumberStyles.AllowLeadingSign, CultureInfo.InvariantCulture, out long number) => number,
            _ => throw Error($"\"{word}\" is no value: expected a string in quotes, a whole number, true, false or an array of strings"),
        };
    }

    private List<string> ReadArray()
    {
        List<string> values = [];
        _at++;
        while (SkipBlank() && Current != ']')
        {
            if (Current is not ('"' or '\''))
            {
                throw Error("expected a string in quotes: arrays hold strings only");
            }

            values.Add(ReadString());
            if (SkipBlank() && Current == ',')
            {
                _at++;
            }
            else if (Current != ']')
            {
                throw Error("expected , or ] in an array");
            }
        }

        if (Current != ']')
        {
            throw Error("an array does not end");
        }

        _at++;
        return values;
    }

    private string ReadString()
    {
        char quote = Current;
        StringBuilder value = new();
        _at++;
        while (Current != quote)
        {
            if (_at >= _text.Length || char.IsControl(Current))
            {
                throw Error("a string does not end on its line");
            }

            value.Append(Current == '\\' && quote == '"' ? ReadEscape() : Current);
            _at++;
        }

        _at++;
        return Current != quote || value.Length > 0 ? value.ToString() : throw Error("strings of several lines are not supported");
    }

    private char ReadEscape()
    {
        _at++;
        return Current switch
        {
            '"' => '"',
            '\\' => '\\',
            't' => '\t',
            _ => throw Error($"the escape \\{Current} is not supported: \\\", \\\\ and \\t are; use a literal string ('...')"),
        };
    }

    private void EndLine()
    {
        SkipSpaces();
        if (Current == '#')
        {
            SkipComment();
        }

        if (_at < _text.Length && Current is not ('\r' or '\n'))
        {
            throw Error("expected the end of the line after the value");
        }
    }
}
