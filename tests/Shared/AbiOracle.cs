using System.Diagnostics;
using System.Globalization;
using System.Reflection;
using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using System.Text;
using System.Text.RegularExpressions;
using Xunit;

namespace MicroVm.Tests.Shared;

/// <summary>
/// Compares what we declare (constants, struct sizes, field offsets and field sizes) with what a C program compiled
/// against the system's headers says.
/// </summary>
internal static partial class AbiOracle
{
    /// <summary>Null when gcc is there; else why the comparison cannot be made.</summary>
    public static string? Missing { get; } = FindGcc();

    /// <summary>
    /// Evaluates C integer expressions. One that these headers do not know is missing from the answer, not an error.
    /// </summary>
    /// <param name="prologue">C text: #define and #include lines.</param>
    /// <param name="expressions">Integer constant expressions; each a line of the program.</param>
    public static IReadOnlyDictionary<string, long> Evaluate(string prologue, IEnumerable<string> expressions)
    {
        string[] all = [.. expressions.Distinct()];
        HashSet<int> unknown = [];
        string dir = Directory.CreateTempSubdirectory("abi-oracle-").FullName;
        try
        {
            // A line that does not compile is dropped and the rest compiled again: gcc reports all unknown names at once,
            // but a name in a struct it does not know may hide another, hence more than one round.
            for (int round = 0; round < 10; round++)
            {
                string source = Path.Combine(dir, "oracle.c");
                string program = Path.Combine(dir, "oracle");
                int firstLine = WriteSource(source, prologue, all, unknown);
                (int status, string _, string errors) = Run("gcc", "-w", "-fmax-errors=0", "-o", program, source);
                if (status == 0)
                {
                    (int ran, string output, string _) = Run(program);
                    return ran == 0 ? Parse(output, all) : throw new InvalidOperationException($"the oracle program ended with {ran}");
                }

                int before = unknown.Count;
                foreach (Match m in ErrorLine().Matches(errors))
                {
                    int index = int.Parse(m.Groups[1].Value, CultureInfo.InvariantCulture) - firstLine;
                    if (index >= 0 && index < all.Length)
                    {
                        unknown.Add(index);
                    }
                }

                if (unknown.Count == before)
                {
                    throw new InvalidOperationException("the oracle program does not compile:\n" + errors);
                }
            }
        }
        finally
        {
            Directory.Delete(dir, recursive: true);
        }

        throw new InvalidOperationException("the oracle program does not compile after ten rounds");
    }

    /// <summary>
    /// Checks the integer constants of a static class (or the members of an enum) by name. Each is compared with the
    /// first of the prologues that knows it.
    /// </summary>
    /// <returns>One line for each difference and for each name that no header knows; empty when all agree.</returns>
    public static List<string> CompareConstants(Type type, IReadOnlyList<string> prologues)
    {
        FieldInfo[] fields = [.. type.GetFields(BindingFlags.Static | BindingFlags.Public).Where(f => f.IsLiteral)];
        Assert.NotEmpty(fields);
        Dictionary<string, string> expressions = fields.ToDictionary(f => f.Name, f => f.Name);
        return Compare(expressions, name => Bits(fields.Single(f => f.Name == name).GetRawConstantValue()!), prologues);
    }

    /// <summary>Checks a struct's size, and the offset and size of every field, nested ones by their path.</summary>
    /// <param name="type">Our struct; its name, or <paramref name="cName"/>, is the C struct's.</param>
    /// <param name="prologues">As for <see cref="CompareConstants"/>.</param>
    /// <param name="cName">The C type, when it is not <c>struct name</c>.</param>
    public static List<string> CompareStruct(Type type, IReadOnlyList<string> prologues, string? cName = null)
    {
        cName ??= "struct " + type.Name;
        Dictionary<string, string> expressions = new() { ["sizeof " + type.Name] = $"sizeof({cName})" };
        Dictionary<string, long> ours = new() { ["sizeof " + type.Name] = SizeOf(type) };
        AddFields(type, cName, "", 0, expressions, ours);
        return Compare(expressions, name => (ours[name], 8), prologues);
    }

    /// <summary>The structs declared in a namespace, without nested and compiler-made ones.</summary>
    public static IEnumerable<Type> Structs(Assembly assembly, string ns) =>
        assembly.GetTypes().Where(t => t.Namespace == ns && t.IsValueType && !t.IsEnum && !t.IsNested);

    private static void AddFields(
        Type type, string cName, string path, long at, Dictionary<string, string> expressions, Dictionary<string, long> ours)
    {
        foreach (FieldInfo field in type.GetFields(BindingFlags.Instance | BindingFlags.Public))
        {
            string fieldPath = path + field.Name;
            long offset = at + Marshal.OffsetOf(type, field.Name);
            string key = $"{type.Name}: offset of {fieldPath}";
            expressions[key] = $"__builtin_offsetof({cName}, {fieldPath})";
            ours[key] = offset;
            key = $"{type.Name}: size of {fieldPath}";
            expressions[key] = $"sizeof((({cName} *)0)->{fieldPath})";
            ours[key] = SizeOf(field.FieldType);
            if (field.FieldType.Assembly == type.Assembly && field.FieldType.IsValueType && !field.FieldType.IsEnum
                && !field.FieldType.IsDefined(typeof(InlineArrayAttribute)) && !field.FieldType.IsDefined(typeof(CompilerGeneratedAttribute)))
            {
                AddFields(field.FieldType, cName, fieldPath + ".", offset, expressions, ours);
            }
        }
    }

    private static List<string> Compare(
        Dictionary<string, string> expressions, Func<string, (long Value, int Bytes)> ours, IReadOnlyList<string> prologues)
    {
        Dictionary<string, long> theirs = [];
        foreach (string prologue in prologues)
        {
            string[] open = [.. expressions.Where(e => !theirs.ContainsKey(e.Key)).Select(e => e.Value)];
            if (open.Length == 0)
            {
                break;
            }

            IReadOnlyDictionary<string, long> known = Evaluate(prologue, open);
            foreach ((string name, string expression) in expressions)
            {
                if (known.TryGetValue(expression, out long value))
                {
                    theirs.TryAdd(name, value);
                }
            }
        }

        List<string> differences = [];
        foreach (string name in expressions.Keys)
        {
            (long value, int bytes) = ours(name);
            if (!theirs.TryGetValue(name, out long their))
            {
                differences.Add($"{name}: no header declares it");
            }
            else if ((bytes == 8 ? their : their & ((1L << (8 * bytes)) - 1)) != value)
            {
                differences.Add($"{name}: {value} (0x{value:x}) here, {their} (0x{their:x}) in C");
            }
        }

        return differences;
    }

    private static (long Value, int Bytes) Bits(object constant) => constant switch
    {
        byte v => (v, 1),
        sbyte v => ((byte)v, 1),
        short v => ((ushort)v, 2),
        ushort v => (v, 2),
        int v => ((uint)v, 4),
        uint v => (v, 4),
        long v => (v, 8),
        ulong v => ((long)v, 8),
        _ => throw new ArgumentException($"{constant.GetType()} is no integer type", nameof(constant)),
    };

    private static long SizeOf(Type type) => type.IsPointer
        ? IntPtr.Size
        : (int)typeof(Unsafe).GetMethod(nameof(Unsafe.SizeOf))!.MakeGenericMethod(type).Invoke(null, null)!;

    private static int WriteSource(string path, string prologue, string[] expressions, HashSet<int> unknown)
    {
        StringBuilder text = new();
        text.Append(prologue).Append("\n#include <stdio.h>\nint main(void) {\n");
        int firstLine = text.ToString().Count(c => c == '\n') + 1;
        for (int i = 0; i < expressions.Length; i++)
        {
            string line = $"printf(\"{i} %lld\\n\", (long long)({expressions[i]}));";
            text.Append(unknown.Contains(i) ? "" : line).Append('\n');
        }

        text.Append("return 0; }\n");
        File.WriteAllText(path, text.ToString());
        return firstLine;
    }

    private static Dictionary<string, long> Parse(string output, string[] expressions) => output
        .Split('\n', StringSplitOptions.RemoveEmptyEntries)
        .Select(line => line.Split(' '))
        .ToDictionary(
            parts => expressions[int.Parse(parts[0], CultureInfo.InvariantCulture)],
            parts => long.Parse(parts[1], CultureInfo.InvariantCulture));

    private static (int Status, string Output, string Errors) Run(string file, params string[] arguments)
    {
        ProcessStartInfo info = new(file, arguments) { RedirectStandardOutput = true, RedirectStandardError = true };
        info.Environment["LC_ALL"] = "C";
        using Process process = Process.Start(info)!;
        Task<string> errors = process.StandardError.ReadToEndAsync();
        string output = process.StandardOutput.ReadToEnd();
        process.WaitForExit();
        return (process.ExitCode, output, errors.Result);
    }

    private static string? FindGcc()
    {
        try
        {
            return Run("gcc", "--version").Status == 0 ? null : "gcc does not run: the ABI cannot be compared with the C headers";
        }
        catch (System.ComponentModel.Win32Exception)
        {
            return "NO GCC ON THIS MACHINE: the ABI cannot be compared with the C headers";
        }
    }

    [GeneratedRegex(@"oracle\.c:(\d+):\d+: error:")]
    private static partial Regex ErrorLine();
}
