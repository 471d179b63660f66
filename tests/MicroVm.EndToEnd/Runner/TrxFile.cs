using System.Globalization;
using System.Text;
using System.Xml;

namespace MicroVm.EndToEnd.Runner;

/// <summary>Results as `dotnet test --logger trx` writes them, as far as they are read: counters, and each test's outcome, time and texts.</summary>
internal static class TrxFile
{
    private const string Namespace = "http://microsoft.com/schemas/VisualStudio/TeamTest/2010";

    public static void Write(string path, IReadOnlyList<Outcome> outcomes)
    {
        // By rename: who finds the file finds all of it.
        string partial = path + ".new";
        using (XmlWriter xml = XmlWriter.Create(partial, new XmlWriterSettings { Indent = true, CheckCharacters = false }))
        {
            xml.WriteStartElement("TestRun", Namespace);
            xml.WriteStartElement("Results");
            foreach (Outcome outcome in outcomes)
            {
                WriteResult(xml, outcome);
            }

            xml.WriteEndElement();
            WriteCounters(xml, outcomes);
            xml.WriteEndElement();
        }

        File.Move(partial, path, overwrite: true);
    }

    private static void WriteResult(XmlWriter xml, Outcome outcome)
    {
        xml.WriteStartElement("UnitTestResult");
        xml.WriteAttributeString("testName", Legal(outcome.Name));
        xml.WriteAttributeString("outcome", outcome.Kind.ToString());
        xml.WriteAttributeString("duration", outcome.Duration.ToString("c", CultureInfo.InvariantCulture));
        xml.WriteStartElement("Output");
        Text(xml, "StdOut", outcome.Output);
        if (outcome.Message.Length > 0)
        {
            xml.WriteStartElement("ErrorInfo");
            Text(xml, "Message", outcome.Message);
            Text(xml, "StackTrace", outcome.StackTrace);
            xml.WriteEndElement();
        }

        xml.WriteEndElement();
        xml.WriteEndElement();
    }

    private static void WriteCounters(XmlWriter xml, IReadOnlyList<Outcome> outcomes)
    {
        int skipped = outcomes.Count(o => o.Kind == OutcomeKind.NotExecuted);
        xml.WriteStartElement("ResultSummary");
        xml.WriteStartElement("Counters");
        Number(xml, "total", outcomes.Count);
        Number(xml, "executed", outcomes.Count - skipped);
        Number(xml, "passed", outcomes.Count(o => o.Kind == OutcomeKind.Passed));
        Number(xml, "failed", outcomes.Count(o => o.Kind == OutcomeKind.Failed));
        xml.WriteEndElement();
        xml.WriteEndElement();
    }

    private static void Number(XmlWriter xml, string name, int value) =>
        xml.WriteAttributeString(name, value.ToString(CultureInfo.InvariantCulture));

    private static void Text(XmlWriter xml, string name, string text)
    {
        if (!string.IsNullOrEmpty(text))
        {
            xml.WriteElementString(name, Legal(text));
        }
    }

    // Tests quote what guests wrote, control characters too.
    private static string Legal(string text)
    {
        StringBuilder legal = new(text.Length);
        foreach (char c in text)
        {
            legal.Append(XmlConvert.IsXmlChar(c) ? c : '\ufffd');
        }

        return legal.ToString();
    }
}
